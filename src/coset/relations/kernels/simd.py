"""Short vectors of fixed length inside Numba kernels.

Plain loops over a handful of heads or channels stay scalar (LLVM cannot rule out that arrays overlap), so
the attention kernels
say what they mean: a vector of one lane a head, or of one lane a channel of every head. The number of lanes
is part of the type;
kernels receive it as the length of a tuple, which keeps them ordinary module-level functions that Numba caches on disk.

Any length works; LLVM splits it over the registers that the machine has.

NumPy has no bfloat16: an array of 16-bit integers is one, stored. A load widens it to float32, a store rounds to the
nearest (ties to even), and all that lies between is float32.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

FAST = ("contract", "reassoc", "nsz", "arcp")

P = ParamSpec("P")


def operation(typed: Callable[Concatenate[Any, P], Any]) -> Callable[P, Any]:
    """What Numba makes of a function of a typing context and types: a call with values of these types."""
    compiled: Any = intrinsic(typed)
    return compiled


STORED = types.int16
"""Of an array that holds bfloat16, bit by bit."""


def arithmetic(scalar: Any) -> Any:
    """What kernels compute in: float32 for what is stored in bfloat16."""
    return types.float32 if scalar == STORED else scalar


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for products of matrices in bfloat16."""
    features = binding.get_host_cpu_features()
    return bool(features.get("avx512bf16") or features.get("amx-bf16"))


class Vector(types.Type):
    """``lanes`` numbers of one float type."""

    def __init__(self, scalar: Any, lanes: int) -> None:
        self.scalar, self.lanes = scalar, lanes
        super().__init__(name=f"Vector({scalar}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _llvm(fe_type.scalar, fe_type.lanes))


def _llvm(scalar: Any, lanes: int) -> Any:
    return ir.VectorType(ir.FloatType() if scalar == types.float32 else ir.DoubleType(), lanes)


class _BFloatType(ir.types._BaseFloatType):
    """LLVM's own, which llvmlite does not name."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


_BFloatType._create_instance()


def _whole(bits: int, lanes: int) -> Any:
    return ir.VectorType(ir.IntType(bits), lanes)


def _widened(builder: Any, stored: Any, lanes: int) -> Any:
    """float32 of bfloat16: the same upper half, and zeros."""
    bits = builder.zext(stored, _whole(32, lanes))
    bits = builder.shl(bits, ir.Constant(_whole(32, lanes), [16] * lanes))
    return builder.bitcast(bits, _llvm(types.float32, lanes))


def _rounded(builder: Any, value: Any, lanes: int) -> Any:
    """bfloat16 nearest to float32, ties to even; NaN stays NaN."""
    if binding.get_host_cpu_features().get("avx512bf16"):
        short = builder.fptrunc(value, ir.VectorType(_BFloatType(), lanes))
        return builder.bitcast(short, _whole(16, lanes))

    def constant(number: int) -> Any:
        return ir.Constant(_whole(32, lanes), [number] * lanes)

    bits = builder.bitcast(value, _whole(32, lanes))
    odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
    nearest = builder.add(builder.add(bits, constant(0x7FFF)), odd)
    nearest = builder.select(builder.fcmp_unordered("uno", value, value), constant(0x7FC00000), nearest)
    return builder.trunc(builder.lshr(nearest, constant(16)), _whole(16, lanes))


def _constant(scalar: Any, lanes: int, value: float) -> Any:
    vector = _llvm(scalar, lanes)
    if scalar == types.float32:  # LLVM writes float constants as doubles: round first
        value = struct.unpack("f", struct.pack("f", value))[0]
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * lanes)


def _shuffle(builder: Any, vector: Any, lanes: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    pointer = builder.gep(data, [index])
    return builder.bitcast(pointer, vector.as_pointer())


@operation
def load(typing_context: Any, array: Any, index: Any, like: Any) -> Any:
    """The vector at ``array[index:]`` with as many lanes as the tuple ``like`` has entries."""
    result = Vector(arithmetic(array.dtype), like.count)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stored = array.dtype == STORED
        vector = _whole(16, like.count) if stored else _llvm(array.dtype, like.count)
        address = _address(context, builder, array, arguments[0], arguments[1], vector)
        found = builder.load(address, align=array.dtype.bitwidth // 8, typ=vector)
        return _widened(builder, found, like.count) if stored else found

    return result(array, types.intp, like), build


@operation
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a vector to ``array[index:]``."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stored = array.dtype == STORED
        given = _rounded(builder, arguments[2], value.lanes) if stored else arguments[2]
        address = _address(context, builder, array, arguments[0], arguments[1], given.type)
        builder.store(given, address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), build


def _constant_of(value: float, doc: str) -> Callable[..., Any]:
    @operation
    def function(typing_context: Any, array: Any, like: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _constant(arithmetic(array.dtype), like.count, value)

        return Vector(arithmetic(array.dtype), like.count)(array, like), build

    function.__doc__ = doc
    return function


zeros = _constant_of(0.0, "A vector of zeros in the precision that goes with ``array``.")
lowest = _constant_of(-3.0e38, "A vector below every logit, in the precision that goes with ``array``.")


def _binary(instruction: Callable[[Any, Any, Any], Any], doc: str) -> Callable[..., Any]:
    @operation
    def function(typing_context: Any, a: Any, b: Any) -> Any:
        if not (isinstance(a, Vector) and a == b):
            return None

        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return instruction(builder, *arguments)

        return a(a, b), build

    function.__doc__ = doc
    return function


add = _binary(lambda builder, a, b: builder.fadd(a, b, flags=FAST), "a + b")
subtract = _binary(lambda builder, a, b: builder.fsub(a, b, flags=FAST), "a - b")
multiply = _binary(lambda builder, a, b: builder.fmul(a, b, flags=FAST), "a * b")
divide = _binary(lambda builder, a, b: builder.fdiv(a, b), "a / b")
maximum = _binary(
    lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b), "the larger, lane by lane"
)


@operation
def multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, z = arguments
        return builder.fadd(builder.fmul(x, y, flags=FAST), z, flags=FAST)

    return c(a, b, c), build


@operation
def scale(typing_context: Any, a: Any, factor: Any) -> Any:
    """a times one number of the same precision."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one = builder.insert_element(ir.Constant(arguments[0].type, ir.Undefined), arguments[1], ir.IntType(32)(0))
        return builder.fmul(arguments[0], _shuffle(builder, one, [0] * a.lanes), flags=FAST)

    return a(a, a.scalar), build


@operation
def where_positive(typing_context: Any, condition: Any, a: Any, b: Any) -> Any:
    """a where condition > 0, else b."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = _constant(condition.scalar, condition.lanes, 0.0)
        return builder.select(builder.fcmp_ordered(">", arguments[0], zero), arguments[1], arguments[2])

    return a(condition, a, b), build


@operation
def expand(typing_context: Any, a: Any, like: Any) -> Any:
    """Repeat every lane until there are as many as ``like`` has entries: (p, q) -> (p, p, p, q, q, q)."""
    times = like.count // a.lanes
    result = Vector(a.scalar, like.count)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _shuffle(builder, arguments[0], [lane for lane in range(a.lanes) for _ in range(times)])

    return result(a, like), build


def _fold(builder: Any, vector: Any, heads: int, channels: int) -> Any:
    """Sum groups of neighbouring lanes by halving, an odd one out set aside."""
    if channels == 1:
        return vector
    if channels % 2:
        last = _shuffle(builder, vector, [h * channels + channels - 1 for h in range(heads)])
        rest = _shuffle(builder, vector, [h * channels + c for h in range(heads) for c in range(channels - 1)])
        return builder.fadd(_fold(builder, rest, heads, channels - 1), last, flags=FAST)
    lanes = range(0, heads * channels, 2)
    even, odd = _shuffle(builder, vector, lanes), _shuffle(builder, vector, [lane + 1 for lane in lanes])
    return _fold(builder, builder.fadd(even, odd, flags=FAST), heads, channels // 2)


@operation
def fold(typing_context: Any, a: Any, like: Any) -> Any:
    """Sum neighbouring lanes until as many are left as ``like`` has entries: the adjoint of :func:`expand`."""
    result = Vector(a.scalar, like.count)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fold(builder, arguments[0], like.count, a.lanes // like.count)

    return result(a, like), build


def _exp32(builder: Any, x: Any, lanes: int) -> Any:
    """exp for x <= 0: x = n ln 2 + r, a polynomial in |r| <= ln(2) / 2, n shifted into the exponent bits."""

    def constant(value: float) -> Any:
        return _constant(types.float32, lanes, value)

    def horner(p: Any, value: float) -> Any:
        return builder.fadd(builder.fmul(p, r, flags=FAST), constant(value), flags=FAST)

    integers = ir.VectorType(ir.IntType(32), lanes)
    low = constant(-87.0)
    x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
    # Truncation of a non-positive number shifted by one half rounds to nearest.
    n = builder.fptosi(builder.fadd(builder.fmul(x, constant(1.4426950408889634)), constant(-0.5)), integers)
    whole = builder.sitofp(n, x.type)
    r = builder.fsub(x, builder.fmul(whole, constant(0.693359375)))
    r = builder.fsub(r, builder.fmul(whole, constant(-2.12194440e-4)))
    p = constant(1 / 720)
    for value in (1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        p = horner(p, value)
    bits = builder.shl(builder.add(n, ir.Constant(integers, [127] * lanes)), ir.Constant(integers, [23] * lanes))
    return builder.fmul(p, builder.bitcast(bits, x.type))


@operation
def exp(typing_context: Any, a: Any) -> Any:
    """exp(a) for a <= 0: libm in float64; relative error below 2e-7 and 0 replaced by exp(-87) in float32."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if a.scalar == types.float32:
            return _exp32(builder, arguments[0], a.lanes)
        vector = arguments[0].type
        name = f"llvm.exp.v{a.lanes}f64" if a.lanes > 1 else "llvm.exp.v1f64"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), name)
        return builder.call(function, arguments)

    return a(a), build
