"""A simulator of MagicMind and an MLU card: the same calls, computed by ONNX Runtime. Not a card, and not its speed.

    PYTHONPATH=simulator python -c "import magicmind.python.runtime as mm"     # as in a MagicMind container
    from magicmind.values import CALLS                                         # what was called, in order

The package knows the names that `helpers` takes from the real one, and no other. Where public code does not tell what
the real one does, the simulator is strict, so that working code does not depend on luck:

- a Status has no truth value: forgetting `.ok()` raises;
- a wrong shape, type or setting gives a Status or None, as in MagicMind; a wrong order of calls raises `Misuse`;
- nothing runs before `Queue.sync`, and arrays are copied neither on the way in nor on the way out;
- tensors go before their context, that before the engine, and so on; else `Misuse` is shown on standard error.

The qint precisions are those of `helpers`' ONNX Runtime backend, of a file of opset 11. Its deconvolutions stay in
float: ONNX Runtime has no integer kernel for them.
"""
