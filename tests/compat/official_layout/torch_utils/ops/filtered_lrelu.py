raise RuntimeError("tripwire: the checkout's own filtered_lrelu would build a plugin")
