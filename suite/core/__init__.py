"""The science: the inner loop, its hypergradient, and the outer loop that improves a memory.

unroll      training as a function of what it is trained on, and its hypergradient by a reverse sweep
networks    the networks that are unrolled
captured    the same sweep as one CUDA graph
rows        named tensors as one row of numbers
turns       several runs in one process, which take turns
launched    whether the process is one of several of a command
ranks       several processes that share the rollouts of an outer step
trees       leaves, detached copies and zeros of named tensors
device      the device, set up for repeatable numbers
transfer    tensors of the host sent to a device in one copy
layers      a network on a device, with the layers that are fast there
convolution a convolution whose second derivative is made of ordinary kernels
cpu_layers  memory layout and normalisation that are fast on a CPU
gpu_layers  norm, ReLU and pooling as one kernel on a GPU (triton_kernels)
outer_loop  one step of descent on a memory
"""
