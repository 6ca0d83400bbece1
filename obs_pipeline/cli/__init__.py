"""The command line: a skin over the rooms. One module a command or group of commands; ``main`` lists them.

Here: options, the clock, printing. Not here: anything that a program might want too.
"""
