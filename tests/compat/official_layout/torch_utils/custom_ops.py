raise RuntimeError("tripwire: the checkout's own custom_ops would build a plugin")
