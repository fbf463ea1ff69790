"""sg3 from Python: training, pictures, metrics and runs, as the commands have them. `import sg3` offers all of it.

The commands of the same names parse their words and call what is here.
"""
