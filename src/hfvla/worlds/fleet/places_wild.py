"""Vocabulary: rough land, collapsed buildings, places underground, sand."""

from __future__ import annotations

__all__ = ["PLACES"]


def _rough(scene: str, at: str, through: str, gloss: str, names: str, parts: str, signs: str) -> dict[str, str]:
    return {
        "scene": scene,
        "at": at,
        "through": through,
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": signs,
    }


def _under(gloss: str, names: str, parts: str, signs: str) -> dict[str, str]:
    return _rough("cave", "in", "through", gloss, names, parts, signs)


def _sand(gloss: str, names: str, parts: str, signs: str) -> dict[str, str]:
    return _rough("desert", "in", "across", gloss, names, parts, signs)


PLACES: dict[tuple[str, str], dict[str, str]] = {
    ("rough", "mountain"): _rough(
        "mountain",
        "in",
        "across",
        "high, steep, uneven land",
        "~mountains; rocky mountain pass; mountain trail; alpine ridge; boulder field; scree slope; highland plateau; "
        "mountain valley; rugged ridge line; hiking path in the hills; remote summit area; ~foothills",
        "trail markers; avalanche barriers; snow bridges; rock formations; water sources; refuge huts; goat paths; "
        "cairns; boundary stones",
        "missing hikers; rockfall; lost climbers; avalanche debris; blocked trails; rare plants; stray sheep",
    ),
    ("rough", "hillside"): _rough(
        "mountain",
        "on",
        "across",
        "sloping, unstable ground",
        "hillside; steep embankment; terraced slope; railway embankment; landslide; eroded slope; mudslide area; "
        "foot of the slope; levee slope; road cutting; retaining slope",
        "retaining walls; drainage ditches; tilt sensors; slope anchors; exposed roots; tension cracks; gabions; "
        "culverts",
        "landslide risk; slumping; erosion gullies; fresh cracks; unstable boulders; washouts; seepage",
    ),
    ("rough", "forest"): _rough(
        "forest",
        "in",
        "through",
        "land grown with many trees",
        "forest; dense forest; pine forest; woodland; old-growth forest; forest reserve; beech wood; "
        "mangrove thicket; overgrown woods; logging area; forest trail; wooded ravine; bamboo grove",
        "tree trunks; bark beetle traps; fallen trees; game trails; boundary posts; undergrowth; camera traps; "
        "deadwood; saplings; tree stands; nest boxes",
        "bark beetles; illegal logging; fallen trees; lost mushroom pickers; forest damage; animal tracks; "
        "storm damage",
    ),
    ("rough", "jungle"): _rough(
        "forest",
        "in",
        "through",
        "a hot, wet, very dense forest",
        "jungle; rainforest; tropical rainforest; cloud forest; swamp forest; jungle path; "
        "undergrowth of the rainforest; muddy wetland trail; peat bog; marsh",
        "canopy gaps; orchids; ape nests; jungle ruins; tree ferns; mud banks; camera traps",
        "rare animals; temple ruins; invasive species; snares; crash wreckage; missing explorers",
    ),
    ("rough", "volcano"): _rough(
        "mountain",
        "on",
        "across",
        "land made of lava and ash",
        "volcanic slope; lava field; volcanic terrain; flank of the volcano; hardened lava flow; ash-covered slope; "
        "geyser field; fumarole field; basalt plateau",
        "fumaroles; lava crust; steam vents; seismic stations; hot springs; lava tubes; ash layers",
        "new vents; ground cracks; sulphur deposits; temperature changes; lava breakouts",
    ),
    ("rough", "canyon"): _rough(
        "mountain",
        "in",
        "through",
        "a deep, rocky cut in the land",
        "canyon; gorge; rocky ravine; dry riverbed; stony creek bed; badlands; boulder-strewn gully; arroyo; "
        "karst field",
        "rock walls; side canyons; flood marks; boulders; gravel banks; fossil beds; rock art",
        "fossils; flash flood damage; unstable walls; missing rafters; erosion; ancient carvings",
    ),
    ("rough", "quarry"): _rough(
        "mountain",
        "in",
        "across",
        "a rough pit where stone is taken",
        "quarry; limestone quarry; abandoned quarry; marble quarry; stone pit; slag heap; spoil tip; tailings slope; "
        "blasting area",
        "quarry benches; blast holes; loose blocks; rock layers; haul ramps; spoil heaps",
        "unexploded charges; unstable benches; good stone; cracks; falling rocks",
    ),
    ("rough", "planet"): _rough(
        "mountain",
        "on",
        "across",
        "the stony surface of another world",
        "Martian surface; Martian crater; surface of Mars; lunar highlands; crater rim on the moon; asteroid surface; "
        "rocky alien planet; moon crater; icy moon of Jupiter; rock-strewn landing site on Mars",
        "craters; regolith; outcrops; ice deposits; lander wreck; layered rocks; lava tubes; mineral veins",
        "traces of water; ice; signs of life; minerals; landing spots; meteorites",
    ),
    ("rough", "excavation"): _rough(
        "mountain",
        "at",
        "across",
        "uneven ground where old things are dug up or old walls remain",
        "archaeological dig; excavation site; ancient ruins; Roman ruins; burial mound; fossil dig; hill fort; "
        "battlefield with trenches; uneven temple ruins",
        "trenches; mosaics; wall remains; spoil heaps; survey grid; burial chambers; column drums; pottery layers",
        "looting pits; collapsed trenches; artefacts; hidden walls; erosion",
    ),
    ("rough", "tundra"): _rough(
        "mountain",
        "on",
        "across",
        "cold, uneven land with ice or moss",
        "tundra; crevassed ice; icy slope; moraine; snowy mountain pass; permafrost hummocks; pack ice ridges; "
        "frozen rocky slope; avalanche cone",
        "permafrost; ice ridges; snow layers; snow stakes; reindeer tracks; thaw ponds; snow poles",
        "thawing; buried skiers; hidden crevasses; animal tracks; loose snow",
    ),
    ("rough", "collapsed_building"): _rough(
        "rubble",
        "in",
        "through",
        "a building that has fallen down",
        "collapsed building; earthquake ruins; collapsed house; collapsed parking deck; bombed-out building; "
        "partly collapsed school; pancaked apartment block; burnt-out house; collapsed bridge",
        "void spaces; collapsed slabs; broken walls; gas pipes; cracked columns; blocked entrances; leaning walls",
        "survivors; trapped people; gas leaks; voices; unstable walls; signs of life; buried victims; victims",
    ),
    ("rough", "rubble"): _rough(
        "rubble",
        "on",
        "over",
        "broken stone and wreckage lying about",
        "rubble pile; debris field; disaster area; earthquake zone; tornado-stricken village; explosion site; "
        "plane crash site; train wreck; demolition site; scrapyard heaps; tsunami debris; ~heaps of rubble",
        "debris heaps; wrecked cars; broken beams; fallen poles; access paths; twisted rails; flight recorder",
        "survivors; hazardous leaks; trapped animals; passable routes; injured people; live cables; lost belongings",
    ),
    ("underground", "mine"): _under(
        "a man-made hole where ore is dug",
        "mine; coal mine; mine shaft; abandoned gold mine; mine gallery; salt mine; ore tunnel; old mining drift",
        "roof supports; pit props; rail tracks; air doors; rock bolts; ore seams; conveyor drives",
        "methane; roof falls; trapped miners; water ingress; broken props",
    ),
    ("underground", "cave"): _under(
        "a natural hollow in rock",
        "cave; limestone cave; cavern; cave system; karst cave; lava tube; grotto; ice cave; bat cave",
        "stalactites; cave paintings; narrow passages; chambers; bat roosts; sinkhole floor; side passages",
        "lost cavers; new passages; bats; rockfall; bad air",
    ),
    ("underground", "tunnel"): _under(
        "a long passage dug below the ground",
        "railway tunnel; road tunnel under construction; subway tunnel; metro tunnel; service tunnel; tunnel works; "
        "underground gallery; escape tunnel",
        "tunnel lining; support arches; drain gutters; segment joints; cable brackets; rock anchors; niche doors",
        "water seepage; cracks; loose lining; deformations; smoke; blocked drains",
    ),
    ("underground", "sewer"): _under(
        "a rough man-made space under a town",
        "sewer; dry storm drain; culvert under the road; catacombs; underground bunker ruins; crawl space; "
        "old cistern; utility tunnel; brick sewer; collapsed cellar",
        "brick vaults; manhole shafts; side inlets; cable ducts; rat nests; pipe joints; sediment",
        "blockages; fatbergs; broken bricks; gas; rats; illegal connections",
    ),
    ("sand", "desert"): _sand(
        "dry land without plants, mostly sand or gravel",
        "desert; sandy desert; desert plain; gravel desert; vast desert basin; arid plain; dry steppe; outback; "
        "desert track; stony desert plain; semi-desert",
        "desert tracks; wells; rock art sites; mineral crusts; ruins in the sand; weather stations; sand fences; "
        "oases",
        "water; mineral deposits; buried ruins; lost travellers; meteorites; wind erosion; tyre tracks",
    ),
    ("sand", "dunes"): _sand(
        "hills of loose sand",
        "~sand dunes; dune field; dune valley; sea of sand; ~shifting dunes; sand ridge; erg; sandy wasteland",
        "dune crests; sand ripples; dune grass; sand traps; marker poles; buried pipelines",
        "moving sand; buried roads; erosion; stuck vehicles; sand storms damage",
    ),
    ("sand", "salt_flat"): _sand(
        "very level, dry ground",
        "salt flat; dry lake bed; salt pan; clay pan; salt desert; dried-out lake; alkali flat; flat gravel plain; "
        "cracked mud plain; airstrip in the desert",
        "salt crust; brine pools; polygon cracks; evaporation ponds; survey stakes; lithium wells",
        "thin crust; lithium; brine; dust sources; meteorites",
    ),
    ("sand", "beach"): _sand(
        "the sandy edge of the sea",
        "beach; sandy beach; wide beach; beach strip; sandy shore; tourist beach; lagoon beach; sandbank at low tide",
        "lifeguard stations; beach huts; turtle nests; tide marks; deck chairs; beach volleyball courts",
        "litter; turtle nests; washed-up plastic; lost jewellery; tar balls; jellyfish",
    ),
}
"""(zone, key) -> fields of `Environment`."""
