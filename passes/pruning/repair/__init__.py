"""Repair in closed form: what is left of a pruned model takes over what was removed, from unlabelled samples.

Everything here compares two models on the same samples: the teacher, before the cut, and the student, behind it. `effort` says how
many samples that is worth, `batches` has them. `weighted_layers` are the places where a weight reads or makes channels, and
`weight_storage` their numbers, however they are stored. `input_moments` is what they read, `student` the cut with the weights that read it
updated, `frontier` a model halfway through the samples, `layer_fitting` the least squares done there. `output_distance` tells how far
the student's outputs are from the teacher's, and `repairer` does all of it for one model.

LSTM, GRU and RNN read their own states beside their inputs: `recurrent_layers` tells which gates read what, `recurrent_moments` its
statistics, `recurrent_update` the weights that make up for a cut, and `recurrent_readers` what ranks channels by them.
"""
