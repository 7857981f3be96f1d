"""Every rule there is: the modules of `policy.lint.rules`, one rule each."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from policy.errors import Flaw
from policy.lint import rules
from policy.lint.rule import FlawRule, Rule


@cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule, in the order of their ids."""
    names = [module.name for module in iter_modules(rules.__path__)]
    found: list[Rule] = [import_module(f"{rules.__name__}.{name}").RULE for name in names]
    return tuple(sorted(found, key=lambda rule: rule.id))


@cache
def rules_by_word() -> Mapping[str, Rule]:
    """Every rule by its id and by its name."""
    return MappingProxyType({word: rule for rule in all_rules() for word in (rule.id, rule.name)})


@cache
def rules_by_flaw() -> Mapping[Flaw, FlawRule]:
    """The rule of each kind of what readers refuse."""
    return MappingProxyType({rule.flaw: rule for rule in all_rules() if isinstance(rule, FlawRule)})
