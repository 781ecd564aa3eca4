"""Vocabulary: tall and wide things, stairs and roads. Semicolons separate; "~" marks plural or mass nouns."""

from __future__ import annotations

__all__ = ["PLACES"]


def _tall(at: str, gloss: str, names: str, parts: str, signs: str) -> dict[str, str]:
    return {
        "scene": "tower",
        "at": at,
        "through": "along",
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": signs,
    }


def _wide(scene: str, at: str, gloss: str, names: str, parts: str, signs: str) -> dict[str, str]:
    return {
        "scene": scene,
        "at": at,
        "through": "across",
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": signs,
    }


def _stairs(gloss: str, names: str, parts: str) -> dict[str, str]:
    signs = (
        "slippery treads; loose handrails; worn edges; blocked steps; broken railings; missing lights; cracked steps"
    )
    return {
        "scene": "stairs",
        "at": "on",
        "through": "up",
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": signs,
    }


def _road(gloss: str, names: str, parts: str) -> dict[str, str]:
    signs = "potholes; worn lane markings; oil spills; loose gravel; fallen cargo; frost heave; ruts; standing water"
    return {
        "scene": "road",
        "at": "along",
        "through": "along",
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": signs,
    }


PLACES: dict[tuple[str, str], dict[str, str]] = {
    ("tall", "high_rise"): _tall(
        "on",
        "a very tall building with many storeys",
        "skyscraper; glass skyscraper; office tower; tall office block; apartment tower; residential high-rise; "
        "multi-storey facade; ~tower blocks; curtain wall of the bank tower; hotel high-rise",
        "window panes; facade panels; cladding joints; balcony undersides; sealant seams; upper-storey windows; "
        "sun blinds; stone veneer; fire breaks; parapet copings",
        "cracked glass; loose panels; water stains; missing sealant; rust streaks; spalling concrete; bird damage",
    ),
    ("tall", "rooftop"): _tall(
        "on",
        "the top cover of a building, out of reach from the ground",
        "flat roof; school roof; slate roof; ~rooftops in the old town; tin roof of the hangar; "
        "roof of the town hall; tiled church roof; hospital rooftop; roof ridge; warehouse roof; "
        "~roofs of heritage houses",
        "gutters; roof tiles; skylights; roof vents; flashing; chimney caps; solar modules; rooftop cooling units; "
        "lightning rods; roof membrane; exhaust fans",
        "missing tiles; ponding water; hail damage; moss; loose shingles; clogged gutters; heat loss; leaks; blisters",
    ),
    ("tall", "power_line"): _tall(
        "on",
        "wires that carry electricity high between masts",
        "overhead power line; high-voltage line; transmission line; electricity pylon; ~transmission towers; "
        "distribution line in the hills; lattice pylon; ~overhead cables",
        "insulators; conductors; cross arms; line clamps; spacers; warning balls; splice joints; earth wires",
        "broken insulators; sagging wires; branches too close to the wire; lightning damage; corona discharge; "
        "hot spots",
    ),
    ("tall", "wind_turbine"): _tall(
        "on",
        "a tall tower whose rotor makes electricity from wind",
        "wind turbine; onshore wind turbine; wind farm; ~turbines on the ridge; rotor of a wind turbine; "
        "turbine tower; hilltop wind park",
        "rotor blades; nacelle; blade tips; leading edges; hub; blade root; tower flange; lightning receptors",
        "erosion of the leading edge; blade cracks; oil streaks; lightning strikes; ice build-up; delamination",
    ),
    ("tall", "tall_bridge"): _tall(
        "on",
        "a high structure that carries a road or track over a gap",
        "suspension bridge; cable-stayed bridge; viaduct; railway viaduct; arch bridge; high bridge deck; "
        "steel truss bridge; ~bridge towers",
        "stay cables; suspension cables; pylon heads; truss joints; deck underside; expansion joints; hangers; "
        "upper chords",
        "corrosion; broken strands; loose bolts; fatigue cracks; peeling paint; bird nests; missing rivets",
    ),
    ("tall", "dam_wall"): _tall(
        "on",
        "a high wall that holds back a reservoir, seen from its dry side",
        "dam; concrete dam; gravity dam; arch dam; downstream face of the dam; dam crest; spillway wall",
        "spillway gates; downstream face; joints between blocks; crest road barrier; abutments; drain outlets",
        "seepage; cracks; lime deposits; bulging; displaced blocks; vegetation in the joints",
    ),
    ("tall", "chimney"): _tall(
        "on",
        "a tall pipe or tower that lets out smoke or steam",
        "factory chimney; smokestack; cooling tower; flare stack at the refinery; brick chimney; "
        "~chimneys of the power plant",
        "stack rim; liner bricks; ring stiffeners; warning lights; upper platform; flare tip; emission probes",
        "soot build-up; cracked mortar; burnt paint; rust; leaning; spalled bricks",
    ),
    ("tall", "mast"): _tall(
        "on",
        "a slim tall structure that carries antennas or lamps",
        "radio mast; cell tower; telecom tower; antenna mast; ~floodlight masts; water tower; observation tower; "
        "air traffic control tower",
        "antennas; microwave dishes; guy wires; cable trays; aircraft warning lamps; bolted joints; tank roof; "
        "lamp heads",
        "loose guy wires; misaligned antennas; nests; rusted bolts; broken lamps; ice load",
    ),
    ("tall", "silo_top"): _tall(
        "on",
        "the upper end of a tall store for grain or cement",
        "top of the grain silo; silo roof; upper rim of the silo; ~tops of the grain bins; cement silo dome; "
        "head of the grain elevator",
        "filling hatch; roof vents; pressure relief valves; conveyor head; dome seams; level sensors; catwalk railing",
        "dust build-up; dents; open hatches; rust; loose sheets; roosting pigeons",
    ),
    ("tall", "stadium_roof"): _tall(
        "on",
        "the high cover or frame over a large arena",
        "stadium roof; arena canopy; stadium floodlights; grandstand roof; membrane roof of the arena; "
        "steel frame above the stands",
        "roof membrane; cable net; lamp arrays; roof trusses; rain gutters; score board hangers",
        "torn membrane; loose cables; pooled rain; failed lamps; rust",
    ),
    ("tall", "monument"): _tall(
        "on",
        "an old or famous tall building",
        "cathedral spire; bell tower; castle tower; minaret; church steeple; ~towers of the old fortress; "
        "tall statue; obelisk; dome of the basilica; lighthouse lantern",
        "spire stones; bell louvres; gargoyles; weather vane; dome ribs; stone carvings; pinnacles; clock faces",
        "loose stones; weathered mortar; lead theft; cracks; bird droppings; moss",
    ),
    ("tall", "cliff_face"): _tall(
        "along",
        "a steep wall of rock that nobody can walk on",
        "sea cliff; coastal cliff; vertical rock face; chalk cliff; sheer cliff above the road; overhanging cliff; "
        "~high cliffs by the sea",
        "ledges; nesting ledges; rock nets; overhangs; cliff edge; seepage lines; anchor bolts",
        "loose rock; fresh cracks; nesting seabirds; undercutting; rockfall scars",
    ),
    ("tall", "crane"): _tall(
        "on",
        "a tall machine that lifts loads",
        "tower crane; harbour gantry crane; crane jib; ~cranes above the building site; ship-to-shore crane; "
        "scaffold around the tower",
        "jib; hook block; hoist rope; counterweight; slewing ring; pulleys; trolley rails",
        "frayed rope; missing pins; cracked welds; grease leaks; loose ballast",
    ),
    ("tall", "billboard"): _tall(
        "on",
        "a high sign or lamp beside a road",
        "highway billboard; gantry sign; advertising billboard; ~roadside billboards; neon sign on the tower; "
        "~street lamps on tall poles",
        "sign panels; support posts; lamp brackets; panel bolts; banner frames",
        "storm damage; loose sheets; dead lamps; bent posts; rusted bolts",
    ),
    ("tall", "cable_car"): _tall(
        "along",
        "a way of ropes and cabins high above ground",
        "cable car line; ski lift; gondola lift; chairlift; ropeway; ~cable car pylons; zip line tower",
        "haul rope; pulley wheels; support towers; grips; cabin hangers; upper pulleys",
        "worn rope; ice; misaligned wheels; broken strands; loose bolts",
    ),
    ("wide", "wildlife_reserve"): _wide(
        "plain",
        "over",
        "a very large protected stretch of land where wild animals roam",
        "savanna; wildlife reserve; game reserve; nature reserve; national park; ~wide grasslands; "
        "migration corridor; elephant range; bison range",
        "herds; waterholes; migration routes; rhinos; antelope groups; elephant families; bird flocks; park borders",
        "poachers; stray herds; carcasses; new water sources; burnt patches; illegal camps",
    ),
    ("wide", "city_traffic"): _wide(
        "skyline",
        "over",
        "the whole of a town with all its streets",
        "city centre; downtown area; whole city; metropolitan area; rush-hour traffic; ~motorway junctions; "
        "ring road traffic; urban heat island; port city; suburb",
        "traffic flow; junctions; congestion; parking occupancy; green areas; roof temperatures; smoke plumes; "
        "air quality",
        "traffic jams; accidents; fire risks; hot spots; illegal dumping; smog",
    ),
    ("wide", "flood_zone"): _wide(
        "flood",
        "over",
        "land that a river or storm has covered with water",
        "flooded valley; flood zone; inundated suburb; flooded town; storm-surge area; broken levee; "
        "~flooded farmlands; river delta after the flood",
        "levees; stranded houses; water level; washed-out roads; evacuation routes; flooded streets",
        "stranded people; breaches; rising water; damaged houses; blocked roads",
    ),
    ("wide", "wildfire"): _wide(
        "plain",
        "over",
        "land where vegetation burns or has burnt",
        "wildfire; fire front; burning hillside; burnt area; bushfire; heathland fire; smoke-covered valley",
        "fire line; hot spots; smoke column; spread direction; firebreaks; embers",
        "new ignitions; hot spots; trapped animals; escape routes; flare-ups",
    ),
    ("wide", "coastline"): _wide(
        "plain",
        "along",
        "the long edge between land and sea",
        "coastline; long shoreline; barrier island; estuary; tidal flat; coastal wetland; river delta; "
        "~coastal dunes and bays",
        "shoreline position; sandbanks; oil slicks; bird colonies; seal colonies; sea walls; tide lines",
        "erosion; washed-up containers; oil; stranded whales; plastic waste; storm damage",
    ),
    ("wide", "glacier"): _wide(
        "snow",
        "over",
        "a huge moving body of ice, or snow-covered land",
        "glacier; ice sheet; ice shelf; ~snowfields; polar ice cap; retreating glacier; glacier tongue; ~ice floes",
        "crevasses; meltwater lakes; snow line; calving front; surface speed; moraine edge; snow depth",
        "melting; new crevasses; retreat; meltwater; avalanche danger",
    ),
    ("wide", "weather"): _wide(
        "plain",
        "over",
        "air and clouds far above the ground",
        "storm front; volcanic ash plume; volcanic gas cloud; industrial smoke plume; crater of an active volcano; "
        "cloud layer; valley fog; gas plume over the crater",
        "wind speed; gas concentration; plume height; particle levels; air temperature; sulphur levels; "
        "humidity profile",
        "toxic gas; ash; turbulence; methane; ozone",
    ),
    ("wide", "open_air_event"): _wide(
        "skyline",
        "over",
        "an outdoor gathering of very many people seen as a whole",
        "open-air concert; marathon; bicycle race; protest march; outdoor festival site; regatta; rally stage; "
        "parade; pilgrimage; fireworks show",
        "crowd density; exits; runners; spectators; access roads; camp sites; queues; lead group",
        "bottlenecks; panic; injured people; blocked exits; lost children; overcrowding",
    ),
    ("wide", "big_site"): _wide(
        "plain",
        "over",
        "a building project or pit seen as a whole",
        "motorway construction project; airport extension; new housing district; open-pit mine; "
        "dam construction project; railway line; gas pipeline route; border strip; canal; railway tracks",
        "progress; earthworks; stockpiles; excavated volume; haul roads; rail bed; route markers; storage heaps",
        "delays; slope failures; missing materials; safety violations; obstructions; encroachment",
    ),
    ("stairs", "stairwell"): _stairs(
        "steps inside a building",
        "stairwell; emergency stairwell; office stairwell; steep staircase; spiral staircase; concrete staircase; "
        "narrow stairway; ~flights of stairs; basement stairs; stairs of the clock tower",
        "fire doors; handrails; landings; step edges; emergency lights; stair treads; standpipes",
    ),
    ("stairs", "tower_stairs"): _stairs(
        "steps on the outside or inside of a plant or tower",
        "silo stairs; metal stairs on the tank; fire escape; ~steps inside the lighthouse; stair tower; "
        "scaffold stairs; ladder-steep stairs in the mill; access stairs of the boiler house; cage ladder",
        "grating; guard rails; inspection hatches; landings; control boxes; anchor plates; safety gates",
    ),
    ("stairs", "outdoor_steps"): _stairs(
        "steps in the open",
        "temple steps; stone steps to the shrine; amphitheatre steps; ~hillside steps; metro station stairs; "
        "bleachers; long outdoor staircase; bastion steps",
        "stone treads; landings; hand rails; drainage slots; lamps; side walls",
    ),
    ("paved", "highway"): _road(
        "a smooth road for vehicles",
        "highway; motorway; country road; paved road; main road; express lane; straight asphalt road; bypass; "
        "interstate highway; service road beside the railway; avenue; ring road lane",
        "road surface; crash barriers; lane markings; kerbs; manhole covers; drain grates; cat's eyes; hard shoulder",
    ),
    ("paved", "street"): _road(
        "a paved way in a town without dense crowds",
        "residential street; suburban street; bike path; empty boulevard; promenade road; cul-de-sac; parking lot; "
        "paved yard between the halls; city street at night; village road; delivery route in the suburb",
        "kerbs; litter bins; hydrants; parking bays; paving; letter boxes; speed bumps; charging posts",
    ),
    ("paved", "runway"): _road(
        "a very long, flat, hard strip",
        "runway; taxiway; race track; test track; long concrete causeway; tarmac; velodrome; racing circuit; "
        "kilometre-long quay road; pipeline service road",
        "runway lights; centre line; tarmac joints; rubber marks; drainage channels; pit lane; distance markers",
    ),
}
"""(zone, key) -> fields of `Environment`."""
