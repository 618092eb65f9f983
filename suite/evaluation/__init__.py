"""What a memory is worth: fresh networks trained on its images, and tested on real ones."""
