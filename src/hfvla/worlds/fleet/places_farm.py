"""Vocabulary: farmland, orchards, pastures, growing houses and wild gardens.

The parts carry a focus, since on a farm it is the object that decides: plants and animals ("living"), what works from
air and ground ("system"), what a probe touches ("soil"), what is looked at between the plants ("contact"), what only
the whole view shows ("growth").
"""

from __future__ import annotations

__all__ = ["PLACES"]

_LIVING = (
    "crop disease; leaf blight; mildew; weeds; weed patches; plant stress; rust fungus; leaf spots; plant vigour; "
    "aphid damage on leaves; fungal disease; viral symptoms; ripeness; flowering; stunted plants; plant density; "
    "harvest readiness; drought stress on leaves; nutrient deficiency in leaves; germination; lodging; growth rates"
)
_SYSTEM = (
    "irrigation lines; sprinklers; irrigation valves; drip hoses; drainage channels; drainage ditches; pest pressure; "
    "field sensors; weather stations; pest traps across the field; irrigation performance; crop yield; crop rotation "
    "plots; field margins; rodent damage; planting layout; sprayed strips; irrigation efficiency; fertiliser trials; "
    "pivot irrigators; yield differences; water distribution; pest control measures; farming practices"
)
_SOIL = (
    "soil samples; soil cores; soil moisture probes; nutrient levels in the soil; soil pH; soil composition; "
    "soil salinity; topsoil depth; soil nutrients; organic matter in the soil; soil temperature; soil types; "
    "soil carbon"
)
_CONTACT = (
    "roots; root systems; earthworms; ground beetles; pollinators; beehives; insect traps between the plants; "
    "fence posts; fences; soil compaction; cover crops; mulch layer; stems near the ground; snails; burrows; "
    "insect counts; bee colonies; pollinating insects; root rot; fence wires; crop stubble; mole hills; "
    "insect numbers"
)
_GROWTH = (
    "growth stages; crop cover; drought impact; hail damage across the whole field; vegetation index; crop patterns; "
    "waterlogged areas; storm losses; frost damage over the whole area; canopy temperature; acreage; uneven growth; "
    "weather impact; plant cover; heat stress patterns; flooded patches"
)
_FIELDWORK = (
    "sow the seed in straight rows; plant seed potatoes in rows; drill wheat seed; spray herbicide along the rows; "
    "spread fertiliser; plough the stubble; harrow the soil; roll the seedbed; mow the hay; bale the straw; "
    "transplant seedlings in rows; tow the seed drill; pull a trailer of hay bales; "
    "hoe between the rows mechanically; spread manure; apply liquid fertiliser row by row; "
    "seed a cover crop in rows; till the ground; cut the silage; spray fungicide row by row; "
    "lay drip tape along the rows; plant maize in rows; ridge the potato rows; lime the field"
)
_PICKING = (
    "pick ripe {fruit} by hand; pick {fruit} into baskets; pluck sample {fruit} from the branches; "
    "select and pick the best {fruit}; cut {fruit} with shears and put them in crates; "
    "hand-pick {fruit} for the market; take down {fruit} from several plants for a taste test; "
    "thin out small {fruit} by hand"
)


def _farm(names: str, gloss: str, parts: str, signs: str, scene: str = "crops", **special: str) -> dict[str, str]:
    fields = {
        "scene": scene,
        "at": "in",
        "through": "across",
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": signs,
        "living": _LIVING,
        "system": _SYSTEM,
        "soil": _SOIL,
        "contact": _CONTACT,
        "growth": _GROWTH,
        "fieldwork": _FIELDWORK,
    }
    return fields | special


def _house(names: str, gloss: str, equipment: str, handle: str, signs: str) -> dict[str, str]:
    return {
        "scene": "greenhouse",
        "at": "in",
        "through": "through",
        "gloss": gloss,
        "names": names,
        "equipment": equipment,
        "handle": handle,
        "signs": signs,
    }


PLACES: dict[tuple[str, str], dict[str, str]] = {
    ("field", "grain_field"): _farm(
        "wheat field; barley field; maize field; corn field; rye field; oat field; grain field; rapeseed field; "
        "soybean field; sunflower field; cotton field; sorghum field; rice paddy; ~cereal fields",
        "flat land where grain or fibre is grown",
        "tramlines; seed rows; headlands; crop stand; field roads; bird scarers",
        "bare patches; wild boar damage; uneven rows; trespassers; water shortage; stones",
    ),
    ("field", "vegetable_field"): _farm(
        "potato field; cabbage field; carrot field; onion field; sugar beet field; lettuce rows; vegetable field; "
        "strawberry field; tomato field; pumpkin patch; bean field; asparagus field; vegetable plots",
        "flat land where vegetables are grown",
        "plant rows; ridges; mulch film; crop covers; wheel tracks; row ends",
        "gaps in the rows; pigeon damage; torn covers; slug damage; puddles",
    ),
    ("field", "farm"): _farm(
        "farm; family farm; ~farmland; arable land; ~crop fields; agricultural estate; cultivated land; farm plots; "
        "agricultural land; ~farm fields; organic farm; research farm; ~fields around the village",
        "land that is worked to grow food",
        "field boundaries; farm tracks; crop plots; field access points; windbreaks; storage clamps",
        "water loss; boundary changes; storm debris; unusual activity; low yield; overwatering",
    ),
    ("orchard", "orchard"): _farm(
        "apple orchard; cherry orchard; orchard; olive grove; orange grove; almond orchard; peach orchard; "
        "walnut grove; date palm grove; fruit plantation; banana plantation; avocado orchard",
        "rows of trees that bear fruit or nuts",
        "tree rows; orchard condition; frost fans; anti-hail nets; support stakes; tree spacing; orchard health",
        "broken branches; bird damage; frost damage; torn nets; wilting trees; theft",
        pick=_PICKING.format(fruit="apples")
        + "; "
        + _PICKING.format(fruit="oranges")
        + ";"
        + "gather fruit from several trees for quality testing; pick cherries along the tree rows; "
        "collect ripe olives by hand from tree to tree; bag ripening peaches by hand",
    ),
    ("orchard", "vineyard"): _farm(
        "vineyard; hillside vineyard; wine estate; ~vine rows; vineyard terraces; tea plantation; hop garden; "
        "coffee plantation; berry plantation; raspberry rows; lavender field; ~grape vines",
        "rows of vines or bushes",
        "trellis wires; vine rows; trellis posts; canopy height; shade nets; row covers",
        "broken trellises; starling damage; sunburn; hail damage; gaps",
        pick=_PICKING.format(fruit="grapes")
        + "; "
        + _PICKING.format(fruit="berries")
        + ";"
        + "tie up young vines by hand row after row; snip grape samples from several rows; pluck tea leaves by hand",
    ),
    ("pasture", "pasture"): _farm(
        "pasture; cattle pasture; sheep meadow; grazing land; alpine pasture; horse paddock; dairy pasture; "
        "goat range; free-range poultry meadow; cattle ranch; ~grazing areas; ~meadows",
        "grassland where farm animals feed",
        "water troughs; grazing plots; salt licks; pasture gates; shade shelters; feeding stations",
        "broken troughs; predators; poisonous plants; trampled ground; open gates",
        scene="pasture",
        living="livestock; cattle; sheep; cows; grazing behaviour; lambs; lame animals; herd health; calving cows; "
        "goats; horses; sick animals; livestock movements; flock behaviour; animal health; newborn calves; "
        "overgrazed spots",
        contact="fences; fence posts; electric fence wires; burrows; dung beetles; ground nests; fence lines; "
        "hoof marks; fence staples; earthworms; grass roots; molehills",
        fieldwork="mow the meadow; bale the hay; spread slurry; roll the grassland; pull a trailer of feed; "
        "tow the water tank; reseed the grass with a drill; haul hay bales to the herd; harrow the meadow",
        growth="grass cover; herd distribution; drought patches; grass growth patterns; pasture boundaries; biomass",
        system="water troughs; pasture drainage; feeding stations; gate sensors; grazing rotation; water supply; "
        "pest pressure",
    ),
    ("growing house", "greenhouse"): _house(
        "greenhouse; glasshouse; tomato greenhouse; orchid house; polytunnel; plant nursery; vertical farm; "
        "seedling nursery; hydroponic farm; botanical glasshouse; mushroom house; palm house",
        "a heated house of glass or film where plants grow",
        "humidity sensors; air temperature; grow lamps; seedling trays; misting nozzles; heating pipes; vent flaps; "
        "nutrient tanks; potted plants; climate controls; shade screens; thermometers; plant shelves",
        "prune the tomato plants with scissors; repot the seedlings; tie cucumber vines to strings; "
        "pinch out side shoots; graft young plants; water the pots with a can; pollinate flowers with a brush; "
        "label the seedling trays; prick out the seedlings; sow seeds into trays by hand; cut flowers with shears; "
        "adjust the vent crank",
        "mould; whiteflies; too high humidity; wilting; leaking pipes; pests; temperature swings",
    ),
    ("growing house", "community_garden"): _house(
        "community garden; kitchen garden; school garden; herb garden; allotment garden; hotel courtyard garden; "
        "winter garden; rooftop-terrace planters; monastery garden; indoor garden; flower garden of the clinic",
        "a small garden among people, with beds and paths",
        "raised beds; flower beds; herb pots; rain barrels; compost bins; garden benches; bed labels; tool shed; "
        "plant pots; vegetable beds; planters; garden taps",
        "pull weeds by hand from the beds; trim the hedge with shears; rake the leaves into bags; "
        "plant tulips with a trowel; tie up the roses; fill the watering cans; turn the compost with a fork; "
        "deadhead the roses; assemble a garden bench",
        "slugs; dry soil; dead plants; vandalism; pests; poor growth",
    ),
    ("growing house", "produce_store"): _house(
        "produce storage; harvest storage room; potato store; apple cold room; seed store; grain storage room; "
        "milking parlour; cow barn; hen house; packing house; hay barn; fruit cellar; dairy; cheese cellar; "
        "storage facility for the harvest",
        "a farm building where harvest or animals are kept",
        "storage crates; temperature loggers; milking machines; feed bins; cooling fans; humidity meters; seed bags; "
        "egg conveyors; storage conditions; stored produce; milk tanks; ventilation fans; feed troughs; "
        "sorting tables",
        "sort apples into boxes by hand; attach the milking cups; pack eggs into cartons; label the seed bags; "
        "collect eggs from the nests; turn the cheese wheels; pack vegetables into boxes; weigh and bag potatoes",
        "rot; mould; rodents; sprouting; too warm air; spoilage; broken eggs",
    ),
    ("wild garden", "overgrown_garden"): {
        "scene": "garden",
        "at": "in",
        "through": "through",
        "gloss": "a garden or park that nobody has cut for long",
        "names": "overgrown garden; neglected garden; abandoned garden; wild park; overgrown cemetery; run-down park; "
        "overgrown playground; weed-covered backyard; neglected allotment; overgrown castle garden",
        "parts": "shrubs; ivy; plant growth; hedges; garden paths; fallen branches; old trees; bramble thickets; "
        "garden walls; ponds; plant variety; dead trees",
        "signs": "invasive plants; wasp nests; hidden holes; broken paths; rubbish; dangerous branches; hedgehogs",
    },
}
"""(zone, key) -> fields of `Environment`."""
