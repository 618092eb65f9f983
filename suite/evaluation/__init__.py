"""What a memory is worth: fresh networks are trained on its images and tested on real ones.

protocol    how the networks are trained, as plain data with a version
training    their training, one by one or several side by side
evaluate    accuracies of a protocol's networks
cached      the same, with every network's accuracies kept on disk
comparison  a memory and its controls, side by side
"""
