"""irc: a compiler that makes trained neural networks small and fast."""
