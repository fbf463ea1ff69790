raise RuntimeError("tripwire: the checkout's own fma would build a plugin")
