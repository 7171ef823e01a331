"""What a method that draws at random once for the whole merge has drawn."""

from merging.plan import Plan
from merging.random_bits import uniform_number


def drawn_shares(plan: Plan) -> list[float]:
    """What such a method takes of each expert, in all 1; nothing where settings differ between tensors."""
    settings = [tensor.settings for tensor in plan.tensors if tensor.action == "merge"]
    if plan.method.draws is None or not settings or any(each != settings[0] for each in settings):
        return []
    bits = [uniform_number(plan.recipe.seed, expert.fingerprint) for expert in plan.experts]
    return plan.method.draws(bits, **settings[0]).tolist()
