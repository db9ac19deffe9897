"""Sixteen numbers at a time: the vector instructions that the annealing kernels are made of.

The kernels spend their time on four things: comparing sixteen energy changes with sixteen thresholds, drawing those
thresholds, adding a row of couplings to the fields, and adding one coupling to the fields of sixteen reads. Numba's
automatic vectorization misses the first two (it has no bit masks) and guards the others with alias checks that cost
more than a short row, so each is written here once as LLVM vector code, which LLVM lowers to AVX-512, AVX2 or NEON.

Metropolis accepts a change D at temperature T if u < exp(-D / T), with u uniform; the same thing is D < T e with
e = -log u, an exponential variate that does not depend on D. So thresholds can be drawn before the fields are known,
and a change above `CUT` T need not be drawn for at all (e > 22.2 cannot occur with 31-bit u).

Random numbers are a keyed hash of the variable's index (two rounds of multiply and xor-shift, "lowbias32" of
C. Wellons, with a second key added between the rounds); the two 32-bit keys are new in every sweep of every read. So a
read's random numbers do not depend on how reads are laid out over lanes and threads, and skipping some costs nothing.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
CUT = 22.25
# Minima kept side by side: a comparison that waited for the one before it would take twice as long.
_CHAINS = 4

_F32, _I32, _I16 = ir.FloatType(), ir.IntType(32), ir.IntType(16)
_FLOATS, _INTS, _BITS = (ir.VectorType(kind, LANES) for kind in (_F32, _I32, ir.IntType(1)))
# log2 of a mantissa in [1, 2): Chebyshev fit of degree 5, largest error 1.5e-5.
_LOG2 = [-2.7941536765362596, 5.069756316634003, -3.520218838146512, 1.6101775468974675]
_LOG2 += [-0.4094755857666854, 0.043928627847982946]
_LN2 = 0.6931471805599453

_FLOAT_ARRAY = types.Array(types.float32, 1, "C")
_WORD_ARRAY = types.Array(types.uint32, 1, "C")
_INT_ARRAY = types.Array(types.int32, 1, "C")
_MASK_ARRAY = types.Array(types.uint16, 1, "C")


def _constant(vector_type: ir.VectorType, value: Any) -> ir.Constant:
    return ir.Constant(vector_type, [value] * LANES)


def _broadcast(builder: Any, scalar: Any) -> Any:
    vector_type = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, ir.Constant(vector_type, ir.Undefined), ir.Constant(_INTS, [0] * LANES))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any, vector_type: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), vector_type.as_pointer())


def _load(context: Any, builder: Any, array_type: Any, array: Any, at: Any, vector_type: Any = _FLOATS) -> Any:
    return builder.load(_pointer(context, builder, array_type, array, at, vector_type), align=4)


def _store(context: Any, builder: Any, value: Any, array_type: Any, array: Any, at: Any) -> None:
    builder.store(value, _pointer(context, builder, array_type, array, at, value.type), align=4)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
    return builder.call(function, [a, b, c])


def _mask(builder: Any, bits: Any) -> Any:
    """Sixteen comparisons as the low bits of a 32-bit integer."""
    return builder.zext(builder.bitcast(bits, _I16), _I32)


def _thresholds(builder: Any, counters: Any, key_a: Any, key_b: Any, scale: Any) -> Any:
    """`scale` times exponential variates, one for each counter and pair of keys."""
    bits = builder.add(builder.mul(counters, _constant(_INTS, 0x9E3779B9)), key_a)
    for shift, factor, key in ((16, 0x7FEB352D, key_b), (15, 0x846CA68B, None)):
        bits = builder.mul(builder.xor(bits, builder.lshr(bits, _constant(_INTS, shift))), _constant(_INTS, factor))
        bits = bits if key is None else builder.add(bits, key)
    bits = builder.xor(bits, builder.lshr(bits, _constant(_INTS, 16)))
    uniform = builder.sitofp(builder.lshr(bits, _constant(_INTS, 1)), _FLOATS)
    uniform = builder.fadd(uniform, _constant(_FLOATS, 0.5))
    pattern = builder.bitcast(uniform, _INTS)
    exponent = builder.sitofp(builder.lshr(pattern, _constant(_INTS, 23)), _FLOATS)
    mantissa = builder.or_(builder.and_(pattern, _constant(_INTS, 0x7FFFFF)), _constant(_INTS, 0x3F800000))
    mantissa = builder.bitcast(mantissa, _FLOATS)
    log2 = _constant(_FLOATS, _LOG2[-1])
    for coefficient in _LOG2[-2::-1]:
        log2 = _multiply_add(builder, log2, mantissa, _constant(_FLOATS, coefficient))
    log2 = builder.fadd(builder.fadd(exponent, _constant(_FLOATS, -158.0)), log2)
    return builder.fmul(log2, builder.fmul(scale, _constant(_FLOATS, -_LN2)))


def _counters(builder: Any, first: Any) -> Any:
    return builder.add(_broadcast(builder, first), ir.Constant(_INTS, list(range(LANES))))


@intrinsic
def first_lane(typing: Any, mask: Any) -> Any:
    """Index of the lowest bit that is set in a mask that is not zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1)), ir.IntType(64))

    return types.intp(types.uint32), generate


@intrinsic
def draw(typing: Any, out: Any, counter: Any, key_a: Any, key_b: Any, scale: Any) -> Any:
    """Write `scale` times exponential variates for counters `counter` to `counter` + 15 to `out[:16]`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, first, a, b, factor = arguments
        first = builder.trunc(first, _I32)
        keys = (_broadcast(builder, a), _broadcast(builder, b), _broadcast(builder, factor))
        value = _thresholds(builder, _counters(builder, first), *keys)
        _store(context, builder, value, signature.args[0], array, ir.Constant(ir.IntType(64), 0))
        return context.get_dummy_value()

    return types.void(_FLOAT_ARRAY, types.intp, types.uint32, types.uint32, types.float32), generate


@intrinsic
def below(typing: Any, fields: Any, signs: Any, at: Any, limit: Any) -> Any:
    """Mask of the sixteen variables from `at` on whose flip changes the energy by less than `limit`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        field, sign = (_load(context, builder, signature.args[k], arguments[k], arguments[2]) for k in (0, 1))
        limits = _broadcast(builder, arguments[3])
        return _mask(builder, builder.fcmp_ordered("<", builder.fmul(field, sign), limits))

    return types.uint32(_FLOAT_ARRAY, _FLOAT_ARRAY, types.intp, types.float32), generate


@intrinsic
def below_each(typing: Any, fields: Any, signs: Any, at: Any, limits: Any) -> Any:
    """Mask of the sixteen variables from `at` on whose flip changes the energy by less than their own limit."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        field, sign = (_load(context, builder, signature.args[k], arguments[k], arguments[2]) for k in (0, 1))
        zero = ir.Constant(ir.IntType(64), 0)
        bound = _load(context, builder, signature.args[3], arguments[3], zero)
        return _mask(builder, builder.fcmp_ordered("<", builder.fmul(field, sign), bound))

    return types.uint32(_FLOAT_ARRAY, _FLOAT_ARRAY, types.intp, _FLOAT_ARRAY), generate


@intrinsic
def partners_below(
    typing: Any, fields: Any, signs: Any, groups: Any, at: Any, row: Any, row_at: Any, variable: Any, limits: Any
) -> Any:
    """Mask of the sixteen variables from `at` on whose exchange with `variable` stays below their own limit.

    An exchange flips two variables of the same group, one that is 1 and one that is 0. With the sign s = 1 - 2 x of
    `variable` a and its couplings in `row[row_at:]`, exchanging it with b changes the energy by s (f_a - f_b) - C_ab.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, at, row_at, variable = signature.args, arguments[3], arguments[5], arguments[6]

        def scalar(index: int) -> Any:
            data = context.make_array(kinds[index])(context, builder, arguments[index]).data
            return _broadcast(builder, builder.load(builder.gep(data, [variable])))

        field, sign = (_load(context, builder, kinds[k], arguments[k], at) for k in (0, 1))
        group = _load(context, builder, kinds[2], arguments[2], at, _INTS)
        coupling = _load(context, builder, kinds[4], arguments[4], builder.add(row_at, at))
        bound = _load(context, builder, kinds[7], arguments[7], ir.Constant(ir.IntType(64), 0))
        own_field, own_sign, own_group = scalar(0), scalar(1), scalar(2)
        difference = builder.fsub(own_field, field)
        change = builder.fsub(builder.fmul(own_sign, difference), coupling)
        allowed = builder.and_(builder.icmp_signed("==", group, own_group), builder.fcmp_ordered("!=", sign, own_sign))
        return _mask(builder, builder.and_(allowed, builder.fcmp_ordered("<", change, bound)))

    signature = types.uint32(
        _FLOAT_ARRAY, _FLOAT_ARRAY, _INT_ARRAY, types.intp, _FLOAT_ARRAY, types.intp, types.intp, _FLOAT_ARRAY
    )
    return signature, generate


@intrinsic
def add_row(typing: Any, fields: Any, matrix: Any, at: Any, factor: Any) -> Any:
    """Add `factor` times `matrix[at : at + fields.size]` to the fields; their size is a multiple of sixteen."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        factors = _broadcast(builder, arguments[3])
        size = builder.extract_value(context.make_array(signature.args[0])(context, builder, arguments[0]).shape, 0)
        one, step = ir.Constant(size.type, 0), ir.Constant(size.type, LANES)
        with cgutils.for_range_slice(builder, one, size, step) as (column, _):
            row = _load(context, builder, signature.args[1], arguments[1], builder.add(arguments[2], column))
            field = _load(context, builder, signature.args[0], arguments[0], column)
            updated = _multiply_add(builder, row, factors, field)
            _store(context, builder, updated, signature.args[0], arguments[0], column)
        return context.get_dummy_value()

    return types.void(_FLOAT_ARRAY, _FLOAT_ARRAY, types.intp, types.float32), generate


@intrinsic
def kept_sum(typing: Any, matrix: Any, at: Any, signs: Any) -> Any:
    """Sum, in float64, of `matrix[at : at + signs.size]` where the sign is negative; their size is a multiple of sixteen.

    Sixteen sums side by side, added up in halves at the end: the same on every machine.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        doubles = ir.VectorType(ir.DoubleType(), LANES)
        size = builder.extract_value(context.make_array(signature.args[2])(context, builder, arguments[2]).shape, 0)
        one, step = ir.Constant(size.type, 0), ir.Constant(size.type, LANES)
        sums = cgutils.alloca_once_value(builder, ir.Constant(doubles, [0.0] * LANES))
        with cgutils.for_range_slice(builder, one, size, step) as (column, _):
            row = _load(context, builder, signature.args[0], arguments[0], builder.add(arguments[1], column))
            sign = _load(context, builder, signature.args[2], arguments[2], column)
            kept = builder.select(builder.fcmp_ordered("<", sign, _constant(_FLOATS, 0.0)), row, _constant(_FLOATS, 0.0))
            builder.store(builder.fadd(builder.load(sums), builder.fpext(kept, doubles)), sums)
        total, width = builder.load(sums), LANES
        while width > 1:
            width //= 2
            halves = (
                builder.shuffle_vector(total, total, ir.Constant(ir.VectorType(_I32, width), list(range(first, first + width))))
                for first in (0, width)
            )
            total = builder.fadd(*halves)
        return builder.extract_element(total, ir.Constant(_I32, 0))

    return types.float64(_FLOAT_ARRAY, types.intp, _FLOAT_ARRAY), generate


def _states(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Sixteen reads' states of one variable as bits."""
    pointer = builder.gep(context.make_array(array_type)(context, builder, array).data, [at])
    return pointer, builder.bitcast(builder.load(pointer), _BITS)


def _lane_changes(context: Any, builder: Any, kinds: Any, fields: Any, states: Any, variable: Any) -> Any:
    """What flipping one variable changes in each of sixteen reads, and its states there."""
    at = builder.mul(variable, ir.Constant(variable.type, LANES))
    field = _load(context, builder, kinds[0], fields, at)
    pointer, bits = _states(context, builder, kinds[1], states, variable)
    return builder.select(bits, builder.fneg(field), field), pointer, bits


@intrinsic
def lanes_below(typing: Any, fields: Any, states: Any, variable: Any, limits: Any) -> Any:
    """Mask of the sixteen reads in which flipping `variable` changes the energy by less than the read's limit."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, zero = signature.args, ir.Constant(ir.IntType(64), 0)
        change, _, _ = _lane_changes(context, builder, kinds, *arguments[:3])
        limit = _load(context, builder, kinds[3], arguments[3], zero)
        return _mask(builder, builder.fcmp_ordered("<", change, limit))

    return types.uint32(_FLOAT_ARRAY, _MASK_ARRAY, types.intp, _FLOAT_ARRAY), generate


@intrinsic
def flip_lanes(
    typing: Any, fields: Any, states: Any, variable: Any, keys_a: Any, keys_b: Any, scales: Any, energies: Any, out: Any
) -> Any:
    """Metropolis flips of one variable in sixteen reads; returns the mask of those that accept.

    Their states are flipped, their energies brought up to date, and what each adds to its neighbors' fields per unit of
    coupling (1, -1, or 0 where rejected) is written to `out`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, zero = signature.args, ir.Constant(ir.IntType(64), 0)
        change, pointer, bits = _lane_changes(context, builder, kinds, *arguments[:3])
        a, b = (_load(context, builder, kinds[k], arguments[k], zero, _INTS) for k in (3, 4))
        scale = _load(context, builder, kinds[5], arguments[5], zero)
        counters = _broadcast(builder, builder.trunc(arguments[2], _I32))
        accepted = builder.fcmp_ordered("<", change, _thresholds(builder, counters, a, b, scale))
        mask = builder.bitcast(accepted, _I16)
        builder.store(builder.xor(builder.bitcast(bits, _I16), mask), pointer)
        none = _constant(_FLOATS, 0.0)
        energy = _load(context, builder, kinds[6], arguments[6], zero)
        energy = builder.fadd(energy, builder.select(accepted, change, none))
        _store(context, builder, energy, kinds[6], arguments[6], zero)
        direction = builder.select(bits, _constant(_FLOATS, -1.0), _constant(_FLOATS, 1.0))
        _store(context, builder, builder.select(accepted, direction, none), kinds[7], arguments[7], zero)
        return builder.zext(mask, _I32)

    floats, words = _FLOAT_ARRAY, _WORD_ARRAY
    return types.uint32(floats, _MASK_ARRAY, types.intp, words, words, floats, floats, floats), generate


@intrinsic
def add_to_lanes(typing: Any, fields: Any, columns: Any, values: Any, begin: Any, end: Any, changes: Any) -> Any:
    """Add `values[e]` times the sixteen `changes` to the fields of variable `columns[e]`, for e from begin to end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, (fields, columns, values, begin, end, changes) = signature.args, arguments
        change = _load(context, builder, kinds[5], changes, ir.Constant(ir.IntType(64), 0))
        column_data, value_data = (
            context.make_array(kind)(context, builder, array).data for kind, array in ((kinds[1], columns), (kinds[2], values))
        )
        with cgutils.for_range_slice(builder, begin, end, ir.Constant(begin.type, 1)) as (entry, _):
            column = builder.sext(builder.load(builder.gep(column_data, [entry])), ir.IntType(64))
            at = builder.mul(column, ir.Constant(column.type, LANES))
            value = _broadcast(builder, builder.load(builder.gep(value_data, [entry])))
            field = _load(context, builder, kinds[0], fields, at)
            _store(context, builder, _multiply_add(builder, value, change, field), kinds[0], fields, at)
        return context.get_dummy_value()

    return types.void(_FLOAT_ARRAY, _INT_ARRAY, _FLOAT_ARRAY, types.intp, types.intp, _FLOAT_ARRAY), generate


@intrinsic
def least_change(typing: Any, fields: Any, signs: Any, until: Any, step: Any, limit: Any, changes: Any, places: Any) -> Any:
    """The least energy change of a flip in each of sixteen lanes, and its block, among flips that are not forbidden.

    A flip of variable i is forbidden while `until[i] > step`, unless it changes the energy by less than `limit`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, zero = signature.args, ir.Constant(ir.IntType(64), 0)
        now, limits = (_broadcast(builder, argument) for argument in arguments[3:5])
        size = builder.extract_value(context.make_array(kinds[0])(context, builder, arguments[0]).shape, 0)
        least = [cgutils.alloca_once_value(builder, _constant(_FLOATS, float("inf"))) for _ in range(_CHAINS)]
        place = [cgutils.alloca_once_value(builder, _constant(_INTS, 0)) for _ in range(_CHAINS)]

        def keep_lower(chain: int, change: Any, here: Any, lower: Any) -> None:
            builder.store(builder.select(lower, change, builder.load(least[chain])), least[chain])
            builder.store(builder.select(lower, here, builder.load(place[chain])), place[chain])

        def look(chain: int, at: Any) -> None:
            field, sign = (_load(context, builder, kinds[k], arguments[k], at) for k in (0, 1))
            change = builder.fmul(field, sign)
            forbidden = builder.icmp_signed(">", _load(context, builder, kinds[2], arguments[2], at, _INTS), now)
            allowed = builder.or_(builder.not_(forbidden), builder.fcmp_ordered("<", change, limits))
            lower = builder.and_(allowed, builder.fcmp_ordered("<", change, builder.load(least[chain])))
            keep_lower(chain, change, _broadcast(builder, builder.trunc(at, _I32)), lower)

        whole = builder.and_(size, ir.Constant(size.type, -_CHAINS * LANES))
        with cgutils.for_range_slice(builder, zero, whole, ir.Constant(size.type, _CHAINS * LANES)) as (at, _):
            for chain in range(_CHAINS):
                look(chain, builder.add(at, ir.Constant(size.type, chain * LANES)))
        with cgutils.for_range_slice(builder, whole, size, ir.Constant(size.type, LANES)) as (at, _):
            look(0, at)
        for chain in range(1, _CHAINS):
            change, here = builder.load(least[chain]), builder.load(place[chain])
            keep_lower(0, change, here, builder.fcmp_ordered("<", change, builder.load(least[0])))
        _store(context, builder, builder.load(least[0]), kinds[5], arguments[5], zero)
        _store(context, builder, builder.load(place[0]), kinds[6], arguments[6], zero)
        return context.get_dummy_value()

    signature = types.void(_FLOAT_ARRAY, _FLOAT_ARRAY, _INT_ARRAY, types.int32, types.float32, _FLOAT_ARRAY, _INT_ARRAY)
    return signature, generate
