"""The first call of a notebook: checks its parameters, and shows errors of the reader in one paragraph from then on.

    from helpers.show import notebook

    notebook.start()   # in the first cell after the parameters

The cell still fails, in JupyterLab as under papermill. Other exceptions are faults of the code and keep their frames.
"""

from __future__ import annotations

import ast
from typing import Any, Mapping, Sequence

from helpers.errors import DataError, UsageError, did_you_mean

_INJECTED = "# Parameters"  # how the cell begins that papermill puts after the parameters'


def start() -> None:
    """Has `UsageError` and `DataError` shown as one paragraph, and checks the parameters of the running notebook."""
    from IPython import get_ipython

    shell = get_ipython()
    shell.set_custom_exc((UsageError, DataError), _show)
    check_parameters(shell.user_ns, shell.user_ns["In"])


def check_parameters(names: Mapping[str, Any], cells: Sequence[str]) -> None:
    """Refuses a parameter that the notebook does not have, of which papermill only warns, or one of another type.

    Takes the notebook's variables, `__annotations__` among them, and the sources of the cells run so far.
    """
    kinds = names["__annotations__"]
    for source in cells:
        for name in _assigned(source) if source.startswith(_INJECTED) else ():
            if name not in kinds:
                raise UsageError(f"There is no parameter {name!r}; {did_you_mean(name, kinds)}.")
    for name, kind in kinds.items():
        value = names[name]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise UsageError(f"The parameter {name} must be of type {kind.__name__}, not {value!r}.")


def _assigned(source: str) -> list[str]:
    """Returns the names that a cell of plain assignments sets."""
    targets = [node.targets[0] for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _show(
    shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: int | None = None
) -> list:
    """Sends an error to the notebook as IPython sends any, but for the traceback, which is one line."""
    lines = [f"{kind.__name__}: {' '.join(str(error).split())}"]
    shell._showtraceback(kind, error, lines)  # what IPython itself calls; a handler's return value is not shown
    return lines
