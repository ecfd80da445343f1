"""The stories: families of word problems, each with parameterized templates and a derivation of the answer.

A template draws its numbers and its cast from a `Cast` and returns a story; numbers are drawn so that the answer is an
integer or a simple fraction.
"""

from __future__ import annotations

from fractions import Fraction

from lark_engine.demo import one_step
from lark_engine.demo.cast import Cast, Story, Template
from lark_engine.demo.derivation import Derivation


def shopping_packs(cast: Cast) -> Story:
    (who, _), (item, _) = cast.names(), cast.goods()
    packs, size, price = cast.number(3, 9), cast.number(4, 12), cast.number(2, 7)
    d = Derivation()
    count = d.add(f"the number of {item}", packs, "*", size, item)
    d.add("the total price", count, "*", price, "dollars")
    return Story(
        f"{who} orders {packs} boxes of {item} for the {cast.place()}. Each box holds {size} {item}, and one of them "
        f"costs {price} dollars. How many dollars does the whole order cost?", d,
    )  # fmt: skip


def shopping_change(cast: Cast) -> Story:
    (who, _), (item, other) = cast.names(), cast.goods()
    n, price, m, other_price = cast.number(2, 7), cast.number(3, 9), cast.number(2, 6), cast.number(2, 8)
    paid = (n * price + m * other_price) // 20 * 20 + 20
    d = Derivation()
    first = d.add(f"the cost of the {item}", n, "*", price, "dollars")
    second = d.add(f"the cost of the {other}", m, "*", other_price, "dollars")
    total = d.add("the total cost", first, "+", second, "dollars")
    d.add("the change", paid, "-", total, "dollars")
    return Story(
        f"At the market {who} buys {n} {item} at {price} dollars each and {m} {other} at {other_price} dollars each. "
        f"{who} pays with {paid} dollars. How much change, in dollars, does {who} get back?", d,
    )  # fmt: skip


def rates_tank(cast: Cast) -> Story:
    inflow, leak, hours = cast.number(12, 40), cast.number(2, 9), cast.number(5, 15)
    d = Derivation()
    net = d.add("the net gain in one hour", inflow, "-", leak, "liters per hour")
    d.add("the time to fill the tank", (inflow - leak) * hours, "/", net, "hours")
    return Story(
        f"A pump fills an empty tank with {inflow} liters of water an hour, but a crack lets {leak} liters an hour "
        f"run out. The tank holds {(inflow - leak) * hours} liters. After how many hours is it full?", d,
    )  # fmt: skip


def rates_catch_up(cast: Cast) -> Story:
    who, other = cast.names()
    gain, head = cast.number(2, 5), cast.number(1, 3)
    slow = gain * cast.number(3, 6)
    d = Derivation()
    lead = d.add(f"the lead of {who}", slow, "*", head, "km")
    difference = d.add("the difference of the speeds", slow + gain, "-", slow, "km per hour")
    d.add("the time to catch up", lead, "/", difference, "hours")
    return Story(
        f"{who} starts cycling at {slow} km per hour. {head} hour{'s' if head > 1 else ''} later {other} follows on "
        f"the same road at {slow + gain} km per hour. How many hours after starting does {other} catch up?", d,
    )  # fmt: skip


def rates_two_legs(cast: Cast) -> Story:
    vehicle = cast.vehicle()
    speed, hours, faster, more = cast.number(30, 50, 5), cast.number(2, 4), cast.number(55, 80, 5), cast.number(1, 3)
    d = Derivation()
    first = d.add("the distance of the first leg", speed, "*", hours, "km")
    second = d.add("the distance of the second leg", faster, "*", more, "km")
    distance = d.add("the whole distance", first, "+", second, "km")
    time = d.add("the whole time", hours, "+", more, "hours")
    d.add("the average speed", distance, "/", time, "km per hour")
    return Story(
        f"A {vehicle} travels for {hours} hours at {speed} km per hour and then for {more} "
        f"hour{'s' if more > 1 else ''} at {faster} km per hour. What is its exact average speed over the whole trip, "
        "in km per hour?", d,
    )  # fmt: skip


def ages_past(cast: Cast) -> Story:
    who, other = cast.names()
    age, older, ago = cast.number(14, 30), cast.number(3, 12), cast.number(2, 9)
    d = Derivation()
    now = d.add(f"the age of {other} now", age, "+", older, "years")
    d.add(f"the age of {other} {ago} years ago", now, "-", ago, "years")
    return Story(
        f"{who} is {age} years old. {other} is {older} years older than {who}. How old was {other} {ago} years ago?", d,
    )  # fmt: skip


def ages_sum(cast: Cast) -> Story:
    who, other = cast.names()
    age, times, later = cast.number(6, 15), cast.number(2, 4), cast.number(3, 12)
    d = Derivation()
    now = d.add(f"the age of {other} now", times, "*", age, "years")
    first = d.add(f"the age of {who} in {later} years", age, "+", later, "years")
    second = d.add(f"the age of {other} in {later} years", now, "+", later, "years")
    d.add("the sum of both ages", first, "+", second, "years")
    return Story(
        f"{who} is {age} years old, and {other} is {times} times as old. What will be the sum of their ages in "
        f"{later} years?", d,
    )  # fmt: skip


def fractions_recipe(cast: Cast) -> Story:
    (who, _), bottom = cast.names(), cast.rng.choice((3, 4, 5, 6, 8))
    part, extra = Fraction(cast.number(1, bottom - 1), bottom), Fraction(1, cast.rng.choice((2, 3, 4)))
    batches = cast.number(2, 7)
    d = Derivation()
    flour = d.add("the flour for all batches", batches, "*", part, "cups")
    d.add("all the flour", flour, "+", extra, "cups")
    return Story(
        f"{who} bakes {batches} batches of rolls. One batch needs {part} cup of flour, and {who} needs another {extra} "
        "cup for dusting the table. How many cups of flour are needed in all? Give the answer as a fraction in lowest "
        "terms or a whole number.", d,
    )  # fmt: skip


def fractions_rest(cast: Cast) -> Story:
    bottom, rest = cast.rng.choice((3, 4, 5)), cast.rng.choice((2, 3, 4))
    top, whole = cast.number(1, bottom - 1), bottom * rest * cast.number(2, 8)
    d = Derivation()
    bus = d.add("the number of visitors who came by bus", whole, "*", Fraction(top, bottom), "visitors")
    left = d.add("the number of visitors who did not come by bus", whole, "-", bus, "visitors")
    bike = d.add("the number of visitors who came by bicycle", left, "*", Fraction(1, rest), "visitors")
    d.add("the number of visitors who walked", left, "-", bike, "visitors")
    return Story(
        f"One morning {whole} visitors come to the {cast.place()}. {Fraction(top, bottom)} of them take the bus. Of "
        f"the others, {Fraction(1, rest)} ride a bicycle, and the remaining visitors walk. How many visitors walk?", d,
    )  # fmt: skip


def percent_discount(cast: Cast) -> Story:
    who, _ = cast.names()
    percent, price, coupon = cast.rng.choice((10, 15, 20, 25, 30, 40)), cast.number(60, 240, 20), cast.number(3, 9)
    d = Derivation()
    hundredths = d.add("the product of the price and the percentage", price, "*", percent)
    discount = d.add("the discount", hundredths, "/", 100, "dollars")
    reduced = d.add("the reduced price", price, "-", discount, "dollars")
    d.add("the price after the coupon", reduced, "-", coupon, "dollars")
    return Story(
        f"A coat costs {price} dollars. In the sale its price is reduced by {percent}%, and {who} also has a coupon "
        f"worth {coupon} dollars, which is taken off at the end. How many dollars does {who} pay?", d,
    )  # fmt: skip


def percent_growth(cast: Cast) -> Story:
    percent, members = cast.rng.choice((5, 10, 15, 20, 30, 35)), cast.number(80, 400, 20)
    d = Derivation()
    hundredths = d.add("the product of the membership and the percentage", members, "*", percent)
    growth = d.add("the number of new members", hundredths, "/", 100, "members")
    d.add("the number of members this year", members, "+", growth, "members")
    return Story(
        f"Last year the {cast.place()} had {members} registered members. This year the number grew by {percent}%. How "
        "many registered members are there this year?", d,
    )  # fmt: skip


def geometry_fence(cast: Cast) -> Story:
    who, _ = cast.names()
    length, width, price = cast.number(9, 30), cast.number(5, 20), cast.number(3, 12)
    d = Derivation()
    half = d.add("half of the perimeter", length, "+", width, "m")
    perimeter = d.add("the perimeter", 2, "*", half, "m")
    d.add("the cost of the fence", perimeter, "*", price, "dollars")
    return Story(
        f"{who} wants to put a fence around a rectangular field that is {length} m long and {width} m wide. One meter "
        f"of fence costs {price} dollars. How many dollars does the whole fence cost?", d,
    )  # fmt: skip


def geometry_path(cast: Cast) -> Story:
    length, width, border = cast.number(10, 24), cast.number(6, 15), cast.number(1, 2)
    d = Derivation()
    outer = d.add("the area with the path", length + 2 * border, "*", width + 2 * border, "square meters")
    inner = d.add("the area of the lawn", length, "*", width, "square meters")
    d.add("the area of the path", outer, "-", inner, "square meters")
    return Story(
        f"A rectangular lawn of {length} m by {width} m lies inside a rectangular plot of {length + 2 * border} m by "
        f"{width + 2 * border} m. The strip between them is paved as a path. How many square meters does the path "
        "cover?", d,
    )  # fmt: skip


def mixtures_salt(cast: Cast) -> Story:
    first, second = cast.number(2, 6), cast.number(2, 6)
    weak, strong = cast.number(5, 20, 5), cast.number(25, 50, 5)
    d = Derivation()
    a = d.add("the salt of the first solution in hundredths of a liter", first, "*", weak)
    b = d.add("the salt of the second solution in hundredths of a liter", second, "*", strong)
    salt = d.add("all the salt in hundredths of a liter", a, "+", b)
    volume = d.add("the volume of the mixture", first, "+", second, "liters")
    d.add("the strength of the mixture", salt, "/", volume, "percent")
    return Story(
        f"{first} liters of a {weak}% salt solution are mixed with {second} liters of a {strong}% salt solution. How "
        "many percent of salt does the mixture have? Give an exact number.", d,
    )  # fmt: skip


def mixtures_nuts(cast: Cast) -> Story:
    who, _ = cast.names()
    kilos, cheap, more, dear = cast.number(2, 6), cast.number(6, 10), cast.number(2, 6), cast.number(12, 18)
    d = Derivation()
    a = d.add("the value of the peanuts", kilos, "*", cheap, "dollars")
    b = d.add("the value of the almonds", more, "*", dear, "dollars")
    d.add("the value of the mixture", a, "+", b, "dollars")
    return Story(
        f"{who} mixes {kilos} kg of peanuts at {cheap} dollars per kg with {more} kg of almonds at {dear} dollars per "
        "kg. How many dollars is the whole mixture worth?", d,
    )  # fmt: skip


def sequence_term(cast: Cast) -> Story:
    first, step, n = cast.number(3, 20), cast.number(2, 9), cast.number(8, 25)
    d = Derivation()
    gaps = d.add("the number of steps from the first row", n, "-", 1)
    rise = d.add("the number of seats added on the way", gaps, "*", step, "seats")
    d.add(f"the number of seats in row {n}", first, "+", rise, "seats")
    return Story(
        f"A theater has {first} seats in its first row, and every row has {step} seats more than the row in front of "
        f"it. How many seats are there in row {n}?", d,
    )  # fmt: skip


def sequence_sum(cast: Cast) -> Story:
    who, _ = cast.names()
    first, step, n = cast.number(2, 12), cast.number(2, 6), cast.number(6, 16)
    d = Derivation()
    gaps = d.add("the number of increases", n, "-", 1)
    rise = d.add("the increase up to the last day", gaps, "*", step, "pages")
    last = d.add("the number of pages on the last day", first, "+", rise, "pages")
    pair = d.add("the number of pages on the first and the last day together", first, "+", last, "pages")
    double = d.add("twice the sum", pair, "*", n, "pages")
    d.add("the number of pages on all days", double, "/", 2, "pages")
    return Story(
        f"{who} reads {first} pages of a book on the first day, and every day {step} pages more than on the day before."
        f" How many pages does {who} read in {n} days altogether?", d,
    )  # fmt: skip


def work_machines(cast: Cast) -> Story:
    machines, hours, each = cast.number(3, 8), cast.number(2, 6), cast.number(4, 15)
    others, longer = cast.number(9, 14), cast.number(7, 10)
    d = Derivation()
    one = d.add("the number of parts made by one machine", machines * hours * each, "/", machines, "parts")
    hourly = d.add("the number of parts made by one machine in one hour", one, "/", hours, "parts")
    all_hourly = d.add(f"the number of parts made by {others} machines in one hour", hourly, "*", others, "parts")
    d.add(f"the number of parts made by {others} machines in {longer} hours", all_hourly, "*", longer, "parts")
    return Story(
        f"{machines} equal machines make {machines * hours * each} parts in {hours} hours. How many parts do {others} "
        f"such machines make in {longer} hours?", d,
    )  # fmt: skip


def work_together(cast: Cast) -> Story:
    who, other = cast.names()
    fast = cast.number(2, 9)
    slow = fast + cast.number(1, 6)
    d = Derivation()
    both = d.add("the share painted together in one hour", Fraction(1, fast), "+", Fraction(1, slow))
    d.add("the time needed together", 1, "/", both, "hours")
    return Story(
        f"{who} paints a wall in {fast} hours. {other} needs {slow} hours for the same wall. How many hours do they "
        "need when they paint it together? Give the answer as a fraction in lowest terms or a whole number.", d,
    )  # fmt: skip


def average_needed(cast: Cast) -> Story:
    who, _ = cast.names()
    target, a, b = cast.number(80, 90), cast.number(70, 88), cast.number(72, 89)
    d = Derivation()
    needed = d.add("the number of points needed in all", 3, "*", target, "points")
    so_far = d.add("the number of points of the first two tests", a, "+", b, "points")
    d.add("the number of points needed in the third test", needed, "-", so_far, "points")
    return Story(
        f"{who} scored {a} and {b} points in the first two tests and wants to reach an average of exactly {target} "
        "points over three tests. How many points are needed in the third test?", d,
    )  # fmt: skip


def average_groups(cast: Cast) -> Story:
    small, large, low, high = cast.number(4, 9), cast.number(10, 16), cast.number(11, 14), cast.number(15, 19)
    d = Derivation()
    a = d.add("the time of the first group", small, "*", low, "minutes")
    b = d.add("the time of the second group", large, "*", high, "minutes")
    d.add("the time of all runners", a, "+", b, "minutes")
    return Story(
        f"In a relay, {small} runners need {low} minutes each and {large} runners need {high} minutes each. The times "
        "are added up. How many minutes does the whole relay take?", d,
    )  # fmt: skip


def chance_marbles(cast: Cast) -> Story:
    red, blue, green = cast.number(2, 9), cast.number(2, 9), cast.number(2, 9)
    d = Derivation()
    two = d.add("the number of red and blue marbles", red, "+", blue, "marbles")
    total = d.add("the number of all marbles", two, "+", green, "marbles")
    d.add("the chance of a red marble", red, "/", total)
    return Story(
        f"A bag holds {red} red, {blue} blue and {green} green marbles. One marble is drawn without looking. What is "
        "the probability that it is red? Give the answer as a fraction in lowest terms.", d,
    )  # fmt: skip


def chance_tickets(cast: Cast) -> Story:
    who, _ = cast.names()
    blocks, size, bought = cast.number(3, 8), cast.number(10, 30, 5), cast.number(2, 9)
    d = Derivation()
    total = d.add("the number of tickets", blocks, "*", size, "tickets")
    d.add("the chance of winning", bought, "/", total)
    return Story(
        f"For a raffle at the {cast.place()}, {blocks} blocks of {size} tickets are sold, and exactly one ticket wins. "
        f"{who} owns {bought} tickets. What is the probability that {who} wins? Give the answer as a fraction in "
        "lowest terms.", d,
    )  # fmt: skip


def savings_weeks(cast: Cast) -> Story:
    who, _ = cast.names()
    weekly, spent, weeks, have = cast.number(15, 30), cast.number(3, 9), cast.number(5, 14), cast.number(10, 60)
    d = Derivation()
    net = d.add("the money saved in one week", weekly, "-", spent, "dollars")
    missing = d.add("the money still missing", have + weeks * (weekly - spent), "-", have, "dollars")
    d.add("the number of weeks", missing, "/", net, "weeks")
    return Story(
        f"{who} earns {weekly} dollars a week, spends {spent} dollars of it and saves the rest. A bicycle costs "
        f"{have + weeks * (weekly - spent)} dollars, and {who} already has {have} dollars. For how many more weeks "
        f"must {who} save?", d,
    )  # fmt: skip


# In the order in which problems are drawn; the one-step families stand among the first, so that a small student has
# something to get right in every benchmark.
FAMILIES: dict[str, tuple[Template, ...]] = {
    "counting": (one_step.counting_more,),
    "shopping": (shopping_packs, shopping_change),
    "leftovers": (one_step.leftovers,),
    "rates": (rates_tank, rates_catch_up, rates_two_legs),
    "rows": (one_step.rows,),
    "ages": (ages_past, ages_sum),
    "sharing": (one_step.sharing,),
    "fractions": (fractions_recipe, fractions_rest),
    "percentages": (percent_discount, percent_growth),
    "geometry": (geometry_fence, geometry_path),
    "mixtures": (mixtures_salt, mixtures_nuts),
    "sequences": (sequence_term, sequence_sum),
    "work": (work_machines, work_together),
    "averages": (average_needed, average_groups),
    "probability": (chance_marbles, chance_tickets),
    "savings": (savings_weeks,),
}
