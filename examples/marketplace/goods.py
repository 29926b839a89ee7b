"""What the two sellers sell: names, categories and what is said of them; made up, and no code beyond the table."""

from typing import NamedTuple


class Line(NamedTuple):
    """A product line: its models are sold one by one, its features are what their descriptions are made of."""

    category: str
    noun: str
    cheapest: int
    models: tuple[str, ...]
    features: tuple[str, ...]


GOODS: dict[str, tuple[Line, ...]] = {
    "north": (
        Line("Tents", "tent", 149, ("Fjell 2", "Fjell 4", "Skarv Solo", "Tarn Family"), (
            "Stands without guy lines on rock and sand.",
            "The floor keeps a water column of 5,000 mm out.",
            "Pitched by one person in under four minutes.",
            "Two porches leave room for boots and a stove.",
            "Poles of anodised aluminium, packed in a bag of 48 cm.",
        )),
        Line("Backpacks", "backpack", 89, ("Ridge 28", "Ridge 45", "Cairn 60", "Mole Daypack"), (
            "The back length is adjusted without taking it off.",
            "A rain cover hides in the bottom pocket.",
            "The hip belt carries the weight, not the shoulders.",
            "Fits the cabin of most airlines.",
            "Recycled nylon, stitched twice where it matters.",
        )),
        Line("Stoves", "camping stove", 39, ("Ember", "Ember Duo", "Cinder", "Spark Mini"), (
            "Boils a litre in three and a half minutes.",
            "A wind shield that folds around the pot.",
            "Runs on gas cartridges of any brand.",
            "Lights with a piezo, also with gloves on.",
            "Weighs less than a bar of chocolate.",
        )),
        Line("Sleeping bags", "sleeping bag", 119, ("Lumen 0", "Lumen -10", "Polar Down", "Summer Light"), (
            "Comfortable down to the temperature in its name.",
            "The zip has a guard, so it does not bite the fabric.",
            "Packs down to the size of a loaf of bread.",
            "Filled with down that is certified and traceable.",
            "Two of them zip together.",
        )),
        Line("Lamps", "head lamp", 25, ("Beacon 200", "Beacon 400", "Glow", "Lantern Max"), (
            "Red light that spares the eyes of others.",
            "Charges by USB-C in two hours.",
            "Burns for forty hours at its lowest step.",
            "Survives a fall into a creek.",
            "Dims by itself when a map is held in front of it.",
        )),
        Line("Boots", "hiking boots", 129, ("Scree Mid", "Scree Low", "Moor GTX", "Granite Pro"), (
            "The sole can be replaced by any cobbler.",
            "Waterproof to the third eyelet.",
            "Wide toe box, firm heel.",
            "Leather that asks for wax twice a year.",
            "Broken in after one afternoon.",
        )),
        Line("Bottles", "thermos bottle", 22, ("Brook 0.5", "Brook 1.0", "Steam Mug", "Kettle Flask"), (
            "Keeps tea hot for fourteen hours.",
            "Opens with one hand, closes with a click.",
            "Steel inside and out, nothing that tastes.",
            "Fits the side pocket of every backpack of ours.",
            "The lid is a cup.",
        )),
        Line("Jackets", "rain jacket", 99, ("Squall", "Squall Women", "Drizzle Kids", "Gale Shell"), (
            "Taped seams and zips under the arms.",
            "Folds into its own pocket.",
            "The hood fits over a helmet.",
            "Three layers that breathe uphill.",
            "Reflects where the lamp of a car would hit it.",
        )),
    ),
    "south": (
        Line("Kettles", "electric kettle", 35, ("Amber 1.7", "Amber Glass", "Pico Travel", "Gooseneck Pour"), (
            "Stops at 60, 80 or 100 degrees.",
            "Switches off when it is lifted or empty.",
            "A limescale filter that comes out for rinsing.",
            "Quiet enough for a studio flat.",
            "The cord winds under the base.",
        )),
        Line("Pans", "frying pan", 29, ("Iron 24", "Iron 28", "Ceramic 26", "Wok 32"), (
            "Suited for induction, gas and the oven.",
            "Seasoned at the foundry, ready for eggs.",
            "A handle that stays cool.",
            "No coating that could flake.",
            "Heats evenly to its rim.",
        )),
        Line("Headphones", "headphones", 59, ("Hush One", "Hush Pro", "Tone Wired", "Bud Air"), (
            "Cancels the hum of trains and open offices.",
            "Thirty hours of music, an hour after five minutes of charging.",
            "Two devices at once, and no fuss about it.",
            "Ear pads that are changed without tools.",
            "Microphones that leave the wind out of a call.",
        )),
        Line("Vacuums", "robot vacuum", 219, ("Dusty S", "Dusty S+", "Mopsy", "Corner Bot"), (
            "Maps three floors and remembers where the stairs are.",
            "Empties itself into a bag for six weeks.",
            "Goes around cables, socks and what the dog left.",
            "Lifts its mop when it drives over a carpet.",
            "No account needed: it works without a cloud.",
        )),
        Line("Coffee makers", "coffee machine", 189, ("Crema 3", "Crema 5", "Drip 12", "Moka Classic"), (
            "Grinds, brews and rinses by itself.",
            "Ready half a minute after it is switched on.",
            "A water tank of 1.8 litres that is filled from above.",
            "Milk foam as a café has it.",
            "Spare parts are kept for ten years.",
        )),
        Line("Lights", "desk lamp", 45, ("Arc", "Arc Dim", "Reading Eye", "Panel Wide"), (
            "Light from warm to daylight, turned by a wheel.",
            "Clamps to desks up to six centimetres.",
            "No flicker on camera.",
            "Remembers its last setting.",
            "Charges a phone in its foot.",
        )),
        Line("Scales", "kitchen scale", 19, ("Gram 5", "Gram 10", "Bakers Plate", "Spoon Scale"), (
            "Exact to a gram, up to its limit.",
            "Counts the time of a pour as well.",
            "A plate that goes into the dishwasher.",
            "Goes to sleep after two minutes.",
            "Shows ounces to those who want them.",
        )),
        Line("Speakers", "bluetooth speaker", 49, ("Pebble", "Pebble Stereo", "Boulder", "Shower Tune"), (
            "Floats, and plays on.",
            "Two of them make a pair.",
            "Twelve hours between charges.",
            "Deep enough for a garden party.",
            "A button for the music, none for an assistant.",
        )),
    ),
}  # fmt: skip

WAREHOUSES: dict[str, tuple[str, ...]] = {
    "north": ("Kiel", "Leipzig", "Gdynia"),
    "south": ("Graz", "Brno", "Trieste"),
}

CITIES = (
    "Berlin", "Hamburg", "Wien", "Praha", "Riga", "Tallinn", "Kraków", "Zürich", "Antwerp", "Lyon",
    "Bologna", "Aarhus", "Malmö", "Vilnius", "Porto", "Ljubljana", "Utrecht", "Dresden", "Tartu", "Basel",
)  # fmt: skip

NOTES = (
    "Please leave it with the neighbour.",
    "It is a gift: no invoice in the parcel, please.",
    "Ring twice, the bell is weak.",
    "I need it before Friday.",
    "Bitte an die Packstation.",
    "Invoice to the company, please.",
    "Позвоните за час до доставки.",
    "Ship it together with my other order.",
)
