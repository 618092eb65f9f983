"""The science: the inner loop, its hypergradient, and the outer loop that improves a memory.

unroll      training as a function of what it is trained on, and its hypergradient by a reverse sweep
networks    the networks that are unrolled
captured    the same sweep as one CUDA graph
rows        named tensors as one row of numbers
turns       several runs in one process, which take turns
trees       leaves, detached copies and zeros of named tensors
device      the device, set up for repeatable numbers
cpu_layers  memory layout and layers that are fast on a CPU
outer_loop  one step of descent on a memory
"""
