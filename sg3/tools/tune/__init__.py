"""`sg3 tune`: which launch configurations are the fastest on a GPU, for the kernels that networks call.

calls      what networks ask of the kernels, found without computing anything
ahead      kernels compiled in parallel processes, for a GPU that need not be there
measure    candidates checked and timed, on the GPU
"""
