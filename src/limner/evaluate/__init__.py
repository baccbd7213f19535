"""Quality figures: fidelity of pictures, test sets, reports."""
