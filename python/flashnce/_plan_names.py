"""What a plan tells of itself, with names in place of codes."""

from __future__ import annotations

from . import _library as c

# Fields of fnce_plan_info that hold codes.
_CODES = {
    "device": c.DEVICES, "family": c.FAMILY, "better_family": c.FAMILY, "fallback_family": c.FAMILY,
    "family_reason": c.REASON, "products": c.PRODUCTS, "mixing": c.MIXING, "mixing_reason": c.REASON,
    "columns": c.COLUMNS, "feature_type": c.TYPES, "queue_type": c.TYPES, "gradient_type": c.TYPES,
    "cpu_isa": c.CPU_ISA,
}  # fmt: skip


def name_of(code: int, codes: dict[str, int]) -> str | int | None:
    """The name of a code: None for a 0 without one, and the number itself where a newer library has a new one."""
    return next((name for name, value in codes.items() if value == code), code or None)


def named(info: c.PlanInfo) -> dict[str, str | int | None]:
    """The fields of fnce_plan_info, with names in place of codes."""
    fields = {name: getattr(info, name) for name, _ in c.PlanInfo._fields_ if name not in ("struct_size", "reserved")}
    fields["device_name"] = fields["device_name"].decode(errors="replace")
    return fields | {field: name_of(fields[field], codes) for field, codes in _CODES.items()}
