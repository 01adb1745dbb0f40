"""Configuration as data: programs declare options, a TOML file gives values, errors name the line.

A program builds a schema, reads its file and asks for sections:

    schema = Schema([Section(("limits",), "Limits.", (Option("stanza_size", Kind.SIZE, "256 KiB"),))])
    config = load(Path("mongooseim.toml"), schema)
    config.section("limits").stanza_size
"""

from __future__ import annotations

from monktalk.common.config.load import load, parse, read_text
from monktalk.common.config.model import Change, Config, ConfigError, Problem, Settings
from monktalk.common.config.option import REQUIRED, Kind, Option
from monktalk.common.config.reference import reference
from monktalk.common.config.schema import Schema, Section

__all__ = [
    "REQUIRED",
    "Change",
    "Config",
    "ConfigError",
    "Kind",
    "Option",
    "Problem",
    "Schema",
    "Section",
    "Settings",
    "load",
    "parse",
    "read_text",
    "reference",
]
