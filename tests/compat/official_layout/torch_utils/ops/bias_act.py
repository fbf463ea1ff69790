raise RuntimeError("tripwire: the checkout's own bias_act would build a plugin")
