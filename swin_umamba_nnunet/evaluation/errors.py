"""What the evaluation raises when the user can put things right."""


class EvaluationError(ValueError):
    """One sentence (or a short list): which file or setting, what was expected, what to do."""
