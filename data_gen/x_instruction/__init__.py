"""X-Instruction (arXiv 2405.19744): text of the web is the answer, a trained model writes the English instruction to it."""
