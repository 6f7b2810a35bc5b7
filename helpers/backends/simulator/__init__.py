"""A double of MagicMind and an MLU card: the same calls, computed by ONNX Runtime. No speed of a card, and no card.

    import helpers.backends.simulator.python.runtime as mm      # instead of magicmind.python.runtime
    from helpers.backends.simulator import CALLS                # what was called, in order

It answers to the names that public code is known to use, and to no other. Where public code does not tell what the
real one does, it takes the strictest way, so that whatever walks here does not lean on luck there:

- a Status has no truth value: whoever forgets `.ok()` gets an exception;
- wrong shapes, types or settings are a Status or None, as in MagicMind; a wrong order of calls is a `Misuse`;
- nothing runs before `Queue.sync`, and arrays are neither copied on the way in nor on the way out;
- tensors go before their context, that before the engine, and so on; else a `Misuse` is shown on standard error.

It is chosen by name (`backends.get("magicmind", simulate=True)`, `--simulate`), never found in place of the real one.
"""

from helpers.backends.simulator.trace import CALLS, LABEL, Call, Misuse

__all__ = ["CALLS", "LABEL", "Call", "Misuse"]
