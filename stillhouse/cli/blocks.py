"""``stillhouse blocks``: how a network is cut into blocks, what each costs, what may replace it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from stillhouse.recipe.architectures import Granularity
    from stillhouse.runner.blocks import ShownBlock


@click.command(
    epilog="""\b
Examples:
  stillhouse blocks timm:resnet50
  stillhouse blocks timm:vgg16_bn --input 3x32x32 --by layer --classes 10
  stillhouse blocks model.py:build --option width=32 --replacements
  stillhouse blocks recipes/blockwise-digits.yaml --replacements
"""
)
@click.argument("model")
@click.option("--input", "shape", help="Channels x height x width; default 3x224x224, or a recipe's.")
@click.option("--by", type=click.Choice(["layer", "block", "stage"]), help="Default: block, or a recipe's.")
@click.option("--classes", type=click.IntRange(min=1), help="Default: 1000, or a recipe's.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Of the architecture.")
@click.option("--replacements", is_flag=True, help="Also what may replace each block.")
def blocks(
    model: str,
    shape: str | None,
    by: Granularity | None,
    classes: int | None,
    options: tuple[str, ...],
    replacements: bool,
) -> None:
    """Cut MODEL into blocks: shapes, parameters, multiply-adds, time of one sample.

    MODEL is written as a recipe's model.arch; or it is a recipe, whose teacher is meant or the network that its
    blockwise student is made of. Blocks are counted from 0, as a recipe's mix counts them.
    """
    from stillhouse.models.interface import Interface
    from stillhouse.runner.blocks import Cutting, of_recipe, section_of, show

    if model.endswith((".yaml", ".yml")):
        given = [name for name, value in (("--input", shape), ("--classes", classes), ("--option", options)) if value]
        if given:
            raise click.BadParameter("a recipe says that itself", param_hint=given[0])
        from stillhouse.recipe.load import load

        cutting = of_recipe(load(model), by)
    else:
        matched = re.fullmatch(r"([13])x(\d+)x(\d+)", shape or "3x224x224")
        if matched is None:
            raise click.BadParameter(f"{shape}: say CHANNELSxHEIGHTxWIDTH, e.g. 3x224x224", param_hint="--input")
        channels, height, width = map(int, matched.groups())
        section = section_of(model, dict(_option(each) for each in options))
        cutting = Cutting(section, Interface((channels, height, width), False, classes or 1000), by or "block")
    click.echo("\n".join(_lines(show(cutting, replaced=replacements), replacements)))


def _option(text: str) -> tuple[str, Any]:
    import yaml

    key, sign, value = text.partition("=")
    if not (key and sign):
        raise click.BadParameter(f"{text}: say KEY=VALUE", param_hint="--option")
    return key, yaml.safe_load(value)


def _lines(found: list[ShownBlock], replacements: bool) -> list[str]:
    rows = [("", "block", "ends behind", "input", "output", "parameters", "MMAC", "ms")]
    rows += [
        (
            str(number),
            each.name,
            each.end,
            "x".join(map(str, each.in_shape)),
            "x".join(map(str, each.out_shape)),
            f"{each.cost.params:,}",
            f"{each.cost.macs / 1e6:,.1f}",
            f"{each.cost.latency_ms:.2f}",
        )
        for number, each in enumerate(found)
    ]
    params, macs = sum(each.cost.params for each in found), sum(each.cost.macs for each in found)
    total_ms = sum(each.cost.latency_ms for each in found)
    rows.append(("", f"{len(found)} blocks", "", "", "", f"{params:,}", f"{macs / 1e6:,.1f}", f"{total_ms:.2f}"))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        left = [row[at].ljust(widths[at]) for at in range(1, 5)]
        right = [row[at].rjust(widths[at]) for at in range(5, 8)]
        lines.append("  ".join([row[0].rjust(widths[0]), *left, *right]).rstrip())
        if 0 < number <= len(found):
            each = found[number - 1]
            lines += [f"    {name} can't be looked into ({why}): it is not cut" for name, why in each.closed.items()]
            lines += _replacements(each) if replacements else []
    return lines


def _replacements(each: ShownBlock) -> list[str]:
    if not each.replacements:
        return ["    is kept: nothing smaller has its shapes"]
    params, macs = max(each.cost.params, 1), max(each.cost.macs, 1)
    return [
        f"    {name:<14} {cost.params / params:4.0%} of the parameters, {cost.macs / macs:4.0%} of the MAC"
        for name, cost in each.replacements.items()
    ]
