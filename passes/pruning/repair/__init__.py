"""Repair in closed form: what is left of a pruned model takes over what was removed, from unlabelled samples.

Everything here compares two models on the same samples: the teacher, before the cut, and the student, behind it. `batches` has the
samples, `weighted_layers` the places where a weight reads or makes channels, `input_moments` what they read, `student` the cut
with the weights that read it updated, `paired_sweep` both models side by side, layer by layer, `layer_fitting` the least squares
done there, `output_distance` how far the student's outputs are from the teacher's.
"""
