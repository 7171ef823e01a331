"""What a method that draws at random once for the whole merge has drawn."""

from merging.methods.m3 import shares
from merging.plan import Plan
from merging.random_bits import uniform_number


def drawn_shares(plan: Plan) -> list[float]:
    """What M3 takes of each expert, in all 1; nothing of another method, or where `alpha` differs between tensors."""
    if plan.method.id != "m3":
        return []
    alphas = {tensor.settings["alpha"] for tensor in plan.tensors if tensor.action == "merge"}
    bits = [uniform_number(plan.recipe.seed, expert.fingerprint) for expert in plan.experts]
    return shares(bits, alphas.pop()).tolist() if len(alphas) == 1 else []
