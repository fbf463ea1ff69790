"""`torch_utils.custom_ops`, which compiled the plugins. There is nothing to compile."""

from __future__ import annotations

from typing import Any, NoReturn

verbosity = "brief"  # scripts set it to none, brief or full; nothing is built, so nothing is said

OP_OF_PLUGIN = {
    "bias_act_plugin": "torch_utils.ops.bias_act.bias_act",
    "upfirdn2d_plugin": "torch_utils.ops.upfirdn2d.upfirdn2d",
    "filtered_lrelu_plugin": "torch_utils.ops.filtered_lrelu.filtered_lrelu",
}


class NoPluginError(ImportError):
    """A script wants a compiled plugin itself, below the ops that sg3 answers."""


def get_plugin(module_name: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Raises NoPluginError, naming the op to call instead."""
    op = OP_OF_PLUGIN.get(module_name)
    if op is not None:
        raise NoPluginError(f"{module_name}: sg3.compat builds no plugins, its ops are Triton kernels; call {op}()")
    raise NoPluginError(f"{module_name}: sg3.compat builds no plugins and has no op for this one; run the script "
                        "with plain Python, or without sg3's ops (--no-ops)")
