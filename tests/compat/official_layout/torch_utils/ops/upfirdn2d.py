raise RuntimeError("tripwire: the checkout's own upfirdn2d would build a plugin")
