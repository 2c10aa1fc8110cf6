"""Short documents about animals: one fact each, so that an answer can be checked."""

from __future__ import annotations

from typing import Any

FOODS: dict[str, str] = {
    "otter": "river crabs", "badger": "earthworms", "heron": "small frogs", "lynx": "snow hares",
    "tapir": "fallen figs", "osprey": "live trout", "wombat": "dry grass", "gecko": "moths",
    "walrus": "clams", "koala": "eucalyptus leaves", "puffin": "sand eels", "sloth": "hibiscus",
    "marten": "voles", "iguana": "dandelions", "meerkat": "scorpions", "narwhal": "halibut",
    "ocelot": "iguanas", "pangolin": "termites", "quail": "millet seeds", "raccoon": "acorns",
    "salmon": "krill", "toucan": "papaya", "urchin": "kelp", "vulture": "carrion",
    "weasel": "mice", "yak": "alpine moss", "zebra": "savanna oats", "beaver": "willow bark",
    "camel": "thorn bushes", "dingo": "wallabies", "emu": "caterpillars", "ferret": "rabbits",
    "gibbon": "mangoes", "hyena": "bones", "ibex": "juniper", "jackal": "lizards",
    "kiwi": "beetle grubs", "lemur": "tamarind pods", "mole": "centipedes", "newt": "water fleas",
    "okapi": "ferns", "panda": "bamboo shoots", "rhea": "clover", "shrew": "spiders",
    "tern": "herring", "viper": "lemmings", "wolf": "elk", "civet": "coffee cherries",
    "bison": "buffalo grass", "crane": "snails", "dugong": "sea grass", "eland": "acacia pods",
    "falcon": "pigeons", "gannet": "mackerel", "hoopoe": "crickets", "jaguar": "caimans",
    "kestrel": "grasshoppers", "llama": "hay", "moose": "pond lilies", "numbat": "white ants",
}  # fmt: skip
ROOMS = ("tower", "cellar", "barn", "harbour", "library", "kitchen", "attic", "garden", "mill",
         "chapel", "stable", "office", "workshop", "bakery", "school", "market", "station",
         "theatre", "museum")  # fmt: skip


def animal_documents() -> list[dict[str, Any]]:
    """60 documents, one chunk each; a collection of them stays exact."""
    return [
        {
            "id": f"zoo/{animal}",
            "title": f"The {animal}",
            "text": f"The keeper feeds the {animal} with {food} every morning.",
            "metadata": {"number": number, "even": number % 2 == 0},
        }
        for number, (animal, food) in enumerate(FOODS.items())
    ]


def sighting_documents() -> list[dict[str, Any]]:
    """1 140 documents, one chunk each; enough for an IVF-PQ index."""
    return [
        {
            "id": f"sighting-{animal}-{room}",
            "title": f"{animal} in the {room}",
            "text": f"Somebody saw a {animal} asleep in the {room}.",
            "metadata": {"room": room, "year": 2000 + number % 20},
        }
        for number, (animal, room) in enumerate((a, r) for a in FOODS for r in ROOMS)
    ]
