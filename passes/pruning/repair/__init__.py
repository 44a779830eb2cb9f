"""Repair in closed form: what is left of a pruned model takes over what was removed, from unlabelled samples.

Everything here compares two models on the same samples: the teacher, before the cut, and the student, behind it. `effort` says how many
samples that is worth, `batches` has them, `weighted_layers` the places where a weight reads or makes channels, `weight_storage` their numbers
however they are stored, `input_moments` what they read, `student` the cut with the weights that read it updated, `frontier` a model halfway
through the samples, `layer_fitting` the least squares done there, `output_distance` how far the student's outputs are from the
teacher's, and `repairer` all of it for one model.
"""
