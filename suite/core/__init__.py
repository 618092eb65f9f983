"""The science: the inner loop, its hypergradient, and the outer loop that improves a memory.

unroll      training as a function of what it is trained on, and its hypergradient by a reverse sweep
networks    the networks that are unrolled
captured    the same sweep as CUDA graphs
cpu_layers  layers and layout that are fast on a CPU
outer_loop  a memory, improved step by step
"""
