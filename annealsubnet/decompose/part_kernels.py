"""Compiled steps on parts: couplings inside them, what their boundary adds, which of them are coupled.

Parts are compressed rows as well: part p holds `members[starts[p] : starts[p + 1]]`; a variable may be in several.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, var-annotated"

import numpy as np
from numba import njit

from annealsubnet.decompose.partition_kernels import OPTIONS


@njit(**OPTIONS)
def gather(parts, num_parts):
    """Compressed rows of the members of each part, in rising order, from the part of each variable."""
    starts = np.zeros(num_parts + 1, np.int64)
    for variable in range(parts.size):
        starts[parts[variable] + 1] += 1
    for part in range(num_parts):
        starts[part + 1] += starts[part]
    place = starts[:-1].copy()
    members = np.empty(parts.size, np.int64)
    for variable in range(parts.size):
        members[place[parts[variable]]] = variable
        place[parts[variable]] += 1
    return starts, members


@njit(**OPTIONS)
def induce(rows, columns, values, starts, members):
    """Couplings inside each part: row starts (one a member), local columns, values; and twice the strength inside parts."""
    local = np.full(rows.size - 1, -1, np.int64)
    inner_rows = np.zeros(members.size + 1, np.int64)
    used = 0
    for part in range(starts.size - 1):
        begin, end = starts[part], starts[part + 1]
        for place in range(begin, end):
            local[members[place]] = place
        for place in range(begin, end):
            variable = members[place]
            for entry in range(rows[variable], rows[variable + 1]):
                at = local[columns[entry]]
                used += begin <= at < end
            inner_rows[place + 1] = used
    inner_columns = np.empty(used, np.int32)
    inner_values = np.empty(used, np.float64)
    local[:] = -1
    used = 0
    for part in range(starts.size - 1):
        begin, end = starts[part], starts[part + 1]
        for place in range(begin, end):
            local[members[place]] = place
        for place in range(begin, end):
            variable = members[place]
            for entry in range(rows[variable], rows[variable + 1]):
                at = local[columns[entry]]
                if begin <= at < end:
                    inner_columns[used] = at - begin
                    inner_values[used] = values[entry]
                    used += 1
    return inner_rows, inner_columns, inner_values


@njit(**OPTIONS)
def fold(problem, parts, indices, state, places, folded, energies):
    """Linear terms of parts with their boundary at `state`, and their energies there without offset.

    The field of a member is its linear term and the couplings to all ones of the state, less what comes from inside.

    Args:
        problem: (rows, columns, values, linear) of the whole.
        parts: (starts, members, inner_rows, inner_columns, inner_values).
        indices: of the parts.
        state: of the whole.
        places: where the linear terms of each part begin in `folded`.
        folded: overwritten.
        energies: one a part, overwritten.
    """
    rows, columns, values, linear = problem
    starts, members, inner_rows, inner_columns, inner_values = parts
    for index in range(indices.size):
        begin, end = starts[indices[index]], starts[indices[index] + 1]
        energy = 0.0
        for place in range(begin, end):
            variable = members[place]
            field = linear[variable]
            for entry in range(rows[variable], rows[variable + 1]):
                if state[columns[entry]]:
                    field += values[entry]
            inside = 0.0
            for entry in range(inner_rows[place], inner_rows[place + 1]):
                if state[members[begin + inner_columns[entry]]]:
                    inside += inner_values[entry]
            folded[places[index] + place - begin] = field - inside
            if state[variable]:
                energy += field - 0.5 * inside
        energies[index] = energy


@njit(**OPTIONS)
def membership(starts, members, count):
    """Compressed rows of the parts that each variable is in."""
    homes_starts = np.zeros(count + 1, np.int64)
    for place in range(members.size):
        homes_starts[members[place] + 1] += 1
    for variable in range(count):
        homes_starts[variable + 1] += homes_starts[variable]
    place_of = homes_starts[:-1].copy()
    homes = np.empty(members.size, np.int32)
    for part in range(starts.size - 1):
        for place in range(starts[part], starts[part + 1]):
            homes[place_of[members[place]]] = part
            place_of[members[place]] += 1
    return homes_starts, homes


@njit(**OPTIONS)
def color(rows, columns, starts, members, homes_starts, homes):
    """A color for each part, the least that no part coupled to it or sharing a variable with it has (greedy, in order)."""
    num_parts = starts.size - 1
    colors = np.full(num_parts, -1, np.int64)
    forbidden = np.full(num_parts + 1, -1, np.int64)
    for part in range(num_parts):
        for place in range(starts[part], starts[part + 1]):
            variable = members[place]
            for home in range(homes_starts[variable], homes_starts[variable + 1]):
                if colors[homes[home]] >= 0:
                    forbidden[colors[homes[home]]] = part
            for entry in range(rows[variable], rows[variable + 1]):
                other = columns[entry]
                for home in range(homes_starts[other], homes_starts[other + 1]):
                    if colors[homes[home]] >= 0:
                        forbidden[colors[homes[home]]] = part
        chosen = 0
        while forbidden[chosen] == part:
            chosen += 1
        colors[part] = chosen
    return colors


@njit(**OPTIONS)
def extend(rows, columns, strengths, starts, members, extra, count):
    """Each part with up to `extra` outside variables that it is coupled to most, members in rising order."""
    num_parts = starts.size - 1
    longer = np.empty(members.size + extra * num_parts, np.int64)
    longer_starts = np.zeros(num_parts + 1, np.int64)
    strength = np.zeros(count, np.float64)
    inside = np.full(count, -1, np.int64)
    beside = np.empty(count, np.int64)
    used = 0
    for part in range(num_parts):
        begin = used
        for place in range(starts[part], starts[part + 1]):
            inside[members[place]] = part
            longer[used] = members[place]
            used += 1
        num_beside = 0
        for place in range(starts[part], starts[part + 1]):
            variable = members[place]
            for entry in range(rows[variable], rows[variable + 1]):
                other = columns[entry]
                if inside[other] == part:
                    continue
                if strength[other] == 0.0:
                    beside[num_beside] = other
                    num_beside += 1
                strength[other] += strengths[entry]
        order = np.argsort(-strength[beside[:num_beside]], kind="mergesort")
        for index in range(min(extra, num_beside)):
            longer[used] = beside[order[index]]
            used += 1
        for index in range(num_beside):
            strength[beside[index]] = 0.0
        longer[begin:used] = np.sort(longer[begin:used])
        longer_starts[part + 1] = used
    return longer_starts, longer[:used].copy()


@njit(**OPTIONS)
def trim(starts, neighbors, weights, parts, num_parts, degree, part_starts, members):
    """Take variables out of parts until none has more than `degree` couplings inside its part; those taken out get part −1.

    Of the variable with most couplings and its neighbors the one goes whose couplings inside weigh least.
    """
    inner = np.zeros(parts.size, np.int64)
    weight = np.zeros(parts.size, np.float64)
    for variable in range(parts.size):
        for entry in range(starts[variable], starts[variable + 1]):
            if parts[neighbors[entry]] == parts[variable]:
                inner[variable] += 1
                weight[variable] += weights[entry]
    for part in range(num_parts):
        while True:
            worst = -1
            for place in range(part_starts[part], part_starts[part + 1]):
                variable = members[place]
                if parts[variable] == part and inner[variable] > degree and (worst < 0 or inner[variable] > inner[worst]):
                    worst = variable
            if worst < 0:
                break
            leaving = worst
            for entry in range(starts[worst], starts[worst + 1]):
                other = neighbors[entry]
                if parts[other] == part and weight[other] < weight[leaving]:
                    leaving = other
            parts[leaving] = -1
            for entry in range(starts[leaving], starts[leaving + 1]):
                other = neighbors[entry]
                if parts[other] == part:
                    inner[other] -= 1
                    weight[other] -= weights[entry]


@njit(**OPTIONS)
def inner_degrees(inner_rows, starts):
    """The largest number of couplings of a variable inside each part."""
    degrees = np.zeros(starts.size - 1, np.int64)
    for part in range(starts.size - 1):
        for place in range(starts[part], starts[part + 1]):
            degrees[part] = max(degrees[part], inner_rows[place + 1] - inner_rows[place])
    return degrees


@njit(**OPTIONS)
def eliminated_width(rows, columns, count):
    """An upper bound of the treewidth: eliminate the variable of least degree, join its neighbors, again and again."""
    joined = np.zeros((count, count), np.bool_)
    degrees = np.zeros(count, np.int64)
    for variable in range(count):
        for entry in range(rows[variable], rows[variable + 1]):
            joined[variable, columns[entry]] = True
    for variable in range(count):
        degrees[variable] = joined[variable].sum()
    gone = np.zeros(count, np.bool_)
    near = np.empty(count, np.int64)
    width = 0
    for left in range(count, 0, -1):
        best = -1
        for variable in range(count):
            if not gone[variable] and (best < 0 or degrees[variable] < degrees[best]):
                best = variable
        width = max(width, degrees[best])
        if degrees[best] == left - 1:
            return width
        gone[best] = True
        num_near = 0
        for other in range(count):
            if joined[best, other] and not gone[other]:
                near[num_near] = other
                num_near += 1
        for i in range(num_near):
            one = near[i]
            degrees[one] -= 1
            for j in range(i):
                other = near[j]
                if not joined[one, other]:
                    joined[one, other] = True
                    joined[other, one] = True
                    degrees[one] += 1
                    degrees[other] += 1
    return width
