"""A subset by a condition on the columns of samples.parquet, such as `label_name in ('a', 'b') and end_seconds < 10`.

The condition is Python's syntax of comparisons, read by `ast` and turned into an Arrow expression; nothing of it is ever run
as code.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidpipe.errors import UsageError, one_line
from vidpipe.recipes import nearest
from vidpipe.shards.index import SCHEMA, SamplesFile


def _divide(left: pc.Expression, right: pc.Expression) -> pc.Expression:
    """As Python does; of two integers Arrow would give a whole quotient."""
    return left * pc.scalar(1.0) / right


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divide,
}
_EXAMPLE = "expected a condition such as label_name in ('a', 'b') and end_seconds - start_seconds > 2"


# Arrow takes a stack for them that grows with both, and has no end but the process's.
_MAX_DEPTH = 50  # operators within each other
_MAX_COMPARISONS = 1000
_MAX_SHOWN = 300


def matching_rows(samples: SamplesFile, where: str) -> NDArray[np.bool_]:
    """Which rows of a split's samples.parquet fulfil a condition; where a value is missing, it doesn't.

    Args:
        where: comparisons (`== != < <= > >= in`, `not in`, `is None`, `is not None`) of columns, numbers, strings and sums,
            differences, products and quotients of them, joined by `and`, `or`, `not`.

    Raises:
        UsageError: it is not such a condition, names a column that isn't there, or compares what can't be compared.
        ShardError: samples.parquet is damaged.
    """
    condition = _Condition(where)
    columns = sorted(condition.columns) or ["frames"]
    try:
        matching = [_matches(condition.expression, table) for table in samples.row_groups(columns)]
    except pa.ArrowException as error:
        types = ", ".join(f"{name} is {SCHEMA.field(name).type}" for name in sorted(condition.columns))
        raise UsageError(f"where: {_shown(where)} can't be evaluated: {one_line(error)}; {types}") from error
    pa.default_memory_pool().release_unused()
    return np.concatenate(matching)


def _matches(expression: pc.Expression, rows: pa.Table) -> NDArray[np.bool_]:
    """Which of some rows fulfil it."""
    numbered = rows.append_column(_ROW, pa.array(np.arange(rows.num_rows)))
    matching = np.zeros(rows.num_rows, bool)
    matching[numbered.filter(expression).column(_ROW).to_numpy()] = True
    return matching


_ROW = " row"  # no column that a condition could name


class _Condition:
    """A parsed condition: its Arrow expression and the columns that it names."""

    def __init__(self, where: str) -> None:
        self.columns: set[str] = set()
        self._where = where
        try:
            tree = ast.parse(where.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refused(f"{getattr(error, 'msg', error)} (equality is ==)") from error
        if _is_deeper(tree.body, _MAX_DEPTH):
            raise self._refused(f"more than {_MAX_DEPTH} operators within each other")
        if sum(len(node.ops) for node in ast.walk(tree) if isinstance(node, ast.Compare)) > _MAX_COMPARISONS:
            raise self._refused(f"more than {_MAX_COMPARISONS} comparisons; many values go behind one `in`")
        self.expression = self._condition(tree.body)

    def _condition(self, node: ast.expr) -> pc.Expression:
        match node:
            case ast.BoolOp(op=op, values=values):
                join = operator.and_ if isinstance(op, ast.And) else operator.or_
                return _joined(join, [self._condition(value) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self._condition(operand)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                pairs = zip([left, *comparators], ops, comparators, strict=False)
                return _joined(operator.and_, [self._comparison(*pair) for pair in pairs])
        raise self._refused(f"{ast.unparse(node)} is not a comparison")

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pc.Expression:
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._refused(f"{ast.unparse(right)} after `is`, where only None can stand")
            missing = self._value(left).is_null()
            return missing if isinstance(op, ast.Is) else ~missing
        if isinstance(op, ast.In | ast.NotIn):
            value = self._value(left)
            # Arrow finds a missing value in no list; here it is missing from the comparison too, as from all others.
            among = pc.if_else(value.is_valid(), value.isin(self._constants(right)), pa.scalar(None, pa.bool_()))
            return among if isinstance(op, ast.In) else ~among
        return _COMPARE[type(op)](self._value(left), self._value(right))

    def _value(self, node: ast.expr) -> pc.Expression:
        match node:
            case ast.Name(id=name):
                if name not in SCHEMA.names:
                    raise self._refused(f"no column {name!r}{nearest(name, SCHEMA.names)}")
                self.columns.add(name)
                return pc.field(name)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _ARITHMETIC[type(op)](self._value(left), self._value(right))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand) if not isinstance(
                operand, ast.Constant
            ):
                value = self._value(operand)
                return pc.negate(value) if isinstance(op, ast.USub) else value
        return pc.scalar(self._constant(node))

    def _constants(self, node: ast.expr) -> Sequence[str | float]:
        """The values behind `in`; as in SQL, one alone needs no comma."""
        items = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
        if not items:
            raise self._refused(f"{ast.unparse(node)} after `in` is empty; name at least one value")
        values = [self._constant(item) for item in items]
        if len({isinstance(value, str) for value in values}) != 1:
            raise self._refused(f"{ast.unparse(node)} after `in`, where numbers or strings have to stand")
        return values

    def _constant(self, node: ast.expr) -> str | float:
        match node:
            case ast.Constant(value=str() | int() | float() as value):
                return self._storable(value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return self._storable(-value)
            case ast.UnaryOp(op=ast.UAdd(), operand=ast.Constant(value=int() | float() as value)):
                return self._storable(value)
        raise self._refused(f"{ast.unparse(node)} is neither a column nor a number or a quoted string")

    def _storable(self, value: str | float) -> str | float:
        """The value, unless no column can hold it."""
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise self._refused("a whole number of more than 64 bits, which no column holds")
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self._refused(f"{value!a} is no text that a column could hold")
        return value

    def _refused(self, problem: str) -> UsageError:
        return UsageError(f"where: {_shown(self._where)}: {problem}; {_EXAMPLE}")


def _joined(join: Callable[[Any, Any], Any], parts: list[pc.Expression]) -> pc.Expression:
    """Many conditions as one, halved again and again, so that none is nested deeply."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return join(_joined(join, parts[:middle]), _joined(join, parts[middle:]))


def _is_deeper(node: ast.AST, limit: int) -> bool:
    """Whether nodes are nested more than so deeply."""
    level = [node]
    for _ in range(limit):
        level = [child for parent in level for child in ast.iter_child_nodes(parent)]
    return bool(level)


def _shown(where: str) -> str:
    return repr(where) if len(where) <= _MAX_SHOWN else f"{where[:_MAX_SHOWN]!r} and so on"
