"""Vocabulary: cargo, goals, adjectives, stated facts, purposes, distractors and pointers to the picture."""

from __future__ import annotations

from hfvla.worlds.fleet.facts import phrases

__all__ = [
    "ABOVE",
    "ADJECTIVES",
    "BELOW",
    "DEVICES",
    "DISTRACTORS",
    "FACT_SENTENCES",
    "GOALS",
    "HEAVY",
    "LIGHT",
    "PURPOSES",
    "SHOWN",
    "SHOWN_HEAVY",
    "SHOWN_LIGHT",
    "SHOWN_SIGNS",
    "SPECIMENS",
    "STUDIES",
]

LIGHT = phrases(
    "a parcel; letters; ~documents; a first-aid kit; a toolbox; a radio set; a rope; a lunch box; a laptop; "
    "~spare batteries; a camera; ~medical supplies; ~vaccines; a blood sample; a small package; ~test kits; "
    "a crate of apples; a bundle of blankets; ~spare parts; ~files; a folder; a set of keys; a water bottle; "
    "~sandwiches; a box of gloves; ~cables; a drone battery; a notebook; ~printed plans; ~hand tools; a small box; "
    "~measuring instruments; a bag of screws; a lamp; ~office supplies; ~books; a light backpack; a tent; "
    "~medicines; ~sensors; a spare lens; ~lab samples; ~linen; ~meals; ~uniforms; ~sample jars; a helmet; "
    "~boxes of paper; a defibrillator; ~emergency rations; ~packages; a mail bag; a thermos; ~light tools"
)
HEAVY = phrases(
    "a pallet of bricks; heavy crates; ~steel beams; a heavy generator; ~sacks of cement; ~heavy machine parts; "
    "a full water tank; a pallet of bottles; ~timber beams; ~barrels of oil; a heavy pump; "
    "~rolls of cable weighing 200 kg; a loaded trailer; ~stacks of tiles; ~large batteries; a heavy engine block; "
    "~drums of paint; ~heavy boxes; a heavy safe; ~concrete blocks; ~heavy equipment; ~gas cylinders; ~iron plates; "
    "~loaded bins; bulky furniture; ~heavy sacks; a 150 kg transformer; ~pallets; ~heavy tool chests; "
    "a compressor of 90 kg; ~bulk goods; a large heavy load; ~metal rods by the hundredweight; ~heavy containers; "
    "a tonne of gravel in bags; ~bulky crates; ~heavy supplies; ~heavy materials"
)
SPECIMENS = {
    "rough": phrases(
        "rock samples; plant samples; soil samples; water samples; a lost backpack; rock cores; moss samples; "
        "bone fragments; insect samples; sensor data loggers; a fallen weather balloon; meteorite pieces; "
        "lava samples; seed cones; a crashed model aircraft; animal droppings for analysis; pottery shards; "
        "a data recorder; mineral samples"
    ),
    "underground": phrases(
        "ore samples; rock samples; air samples; bat droppings; water samples; drill cores; a lost helmet; "
        "crystal pieces; coal samples; data loggers"
    ),
    "sand": phrases(
        "sand samples; mineral samples; meteorite pieces; fossil pieces; water samples; shells; "
        "weather data loggers; bones; salt samples; gravel samples; plastic waste"
    ),
    "water": phrases(
        "water samples; sediment cores; coral samples; ancient coins; a lost anchor; shellfish; algae samples; "
        "ghost nets; sponge samples; a flight recorder; amphorae; plastic waste; mud samples; sunken sensors"
    ),
}
DEVICES = phrases(
    "seismic sensors; a weather station; ~marker flags; ~camera traps; a radio beacon; ~ground sensors; "
    "a measuring probe; ~geophones; ~tilt meters; a GPS receiver; a warning sign; ~acoustic recorders; "
    "a relay antenna; ~survey markers; ~temperature loggers; a seismometer; ~motion sensors; ~monitoring devices"
)
GOALS = {
    "outdoor": phrases(
        "the base camp; a research hut; a remote station; the rangers' post; an injured hiker; the survey team; "
        "the field camp; a remote village; the rescue team; a mountain shelter; the expedition; the drill site; "
        "a weather station; the outpost; the other side; a stranded group; the observation post; the far end; "
        "the measuring point; the research site; a remote lab"
    ),
    "sand": phrases(
        "the oasis; a desert camp; a far-off trading post; the drilling team; the nomads' camp; the research base; "
        "a solar station; the lighthouse; the next well; the far end; a desert village; the lifeguards; "
        "the observatory; the field station"
    ),
    "paved": phrases(
        "the next town; the service area; a customer; the petrol station; the toll booth; the terminal; the pit crew; "
        "the rest stop; the depot; the neighbour; the far end; the roadworks crew; the front gate; "
        "the warehouse across town"
    ),
    "underground": phrases(
        "the trapped miners; the deepest chamber; the tunnel crew; the shaft station; the measuring point; "
        "the far end; the work face; the emergency refuge; the research team below; the survey point"
    ),
    "indoor": phrases(
        "the archive; room 214; the reception desk; the meeting room; the other wing; the storeroom; "
        "the secretary's office; the far end; the post room; the operating theatre; the pharmacy window; the lift; "
        "the front desk; the supply room; the other department; the next ward; the linen room; the copy room; "
        "the storage room"
    ),
    "warehouse": phrases(
        "the packing station; bay twelve; the loading dock; the assembly line; the next machine; "
        "the outgoing goods gate; the returns area; the paint shop; the high rack; the forklift zone; "
        "the shipping area; the tool crib; line three"
    ),
    "crowd": phrases(
        "the food stall; the shop at the corner; the library entrance; the information desk; platform nine; "
        "the first-aid tent; the ticket office; the stage; the far side; the bakery; the lecture hall; the exit; "
        "the lost property office; stand 42"
    ),
    "farm": phrases(
        "the barn; the farmyard; the packing house; the silo; the trailer; the field edge; the machine shed; "
        "the washing station"
    ),
    "stairs": phrases(
        "the top floor; the roof door; the tenth floor; the upper platform; the viewing deck; the next landing; "
        "the attic; the control cabin; the bell chamber; the second floor; the top"
    ),
    "roof": phrases(
        "the crew at the top; the upper platform; the maintenance team up there; the top; the topmost level"
    ),
    "site": phrases(
        "the construction crew; the back room; the electricians; the far corner; the lift shaft; the plasterers; the "
        "other end"
    ),
}
ADJECTIVES = {
    "tall": "tall; high; towering; lofty",
    "wide": "vast; large; wide; extensive",
    "rough": "rugged; uneven; rough; remote; rocky; difficult; steep; overgrown; treacherous; hilly; remote; stony",
    "stairs": "steep; narrow; long; high",
    "underground": "dark; narrow; uneven; deep; cramped",
    "sand": "sandy; arid; hot; wide; flat; vast",
    "paved": "long; smooth; flat; level; paved; straight",
    "field": "large; flat; wide; level",
    "orchard": "large; level; well-kept; mature",
    "pasture": "wide; green; open; large",
    "growing house": "small; warm; sheltered; public",
    "wild garden": "old; shared; neighbourhood",
    "compound": "open; guarded; secured; fenced; large",
    "building": "long; quiet; indoor; modern; narrow; busy; crowded; multi-storey",
    "workplace": "small; busy little; indoor; local; crowded",
    "crowd": "crowded; busy; packed; bustling; congested",
    "refit": "indoor; empty; half-finished; bare",
    "warehouse": "large; busy; densely packed; modern; automated; crowded; packed",
    "water": "deep; murky; submerged; cold; dark",
    "water and air": "exposed; large; ageing; busy; storm-battered",
    "bank": "soft; eroding; slippery; muddy",
}
FACT_SENTENCES = {
    "tall": "It rises more than 40 metres.; Nobody can reach it without scaffolding.; It is far above the ground.",
    "wide": "The area is many square kilometres.; No one can see all of it from the ground.; "
    "It stretches to the horizon.",
    "rough": "The ground is rough.; There is no road.; The terrain is uneven and rocky.; "
    "Wheels would get stuck there.; Boulders and roots block the way.",
    "stairs": "There are 200 steps.; There is no lift.; The steps are steep.; It is several floors up.",
    "underground": "It is dark and uneven down there.; There is no signal from above.; The floor is broken and low.",
    "sand": "It is dry and sandy all the way.; The distances are long and flat.; There is no shade for miles.; "
    "The ground is sandy but level.",
    "paved": "The surface is smooth asphalt.; The way is flat and long.; The road is dry and straight.",
    "field": "The land is flat.; The rows are long.; The ground is level soil.",
    "orchard": "The trees stand in rows.; The ground between the rows is level.; The land is flat.",
    "pasture": "The grass is short.; The land is open and gentle.; Animals are grazing.",
    "growing house": "People work there too.; The paths are narrow.; It is warm inside.",
    "wild garden": "Neighbours use it too.; Everything has grown over.; Nobody has cut it for years.",
    "compound": "The ground is open and level.; There is a fence around it.; It lies in open country.",
    "building": "The floors are level.; There is a lift.; It is all indoors.",
    "workplace": "People work there.; Space is tight.; It is built for people.",
    "crowd": "There are people everywhere.; It is very crowded.; The crowd is dense.",
    "refit": "Work is still going on inside.; The floor is level but dusty.; Doors and tools stand about.",
    "warehouse": "The floor is smooth.; Forklifts pass all day.; Aisles are wide and level.",
    "water": "It lies 30 metres below the surface.; Visibility in the water is poor.; It is all under water.",
    "water and air": "Part of it is above the water and part below.; It stands in the sea.; Waves hit it all day.",
    "bank": "The water is right beside it.; Part of it lies in the water.; The ground slopes into the water.",
}
ABOVE = phrases(
    "from above; from the air; from the sky; from a bird's-eye view; with aerial images; from overhead; by air; "
    "using an aerial camera; from high above; from a hovering camera; from an aerial viewpoint; while flying; "
    "from the air above; with aerial photos; from high up in the air; seen from above; using pictures taken in "
    "flight; with an overhead camera; with a view from above; from the sky above"
)
BELOW = phrases(
    "below the waterline; under water; underwater; beneath the surface; below the surface; on the submerged side; "
    "beneath the waves; from under water; while submerged; below the water surface"
)
PURPOSES = {
    "look": phrases(
        "to plan maintenance; before winter; after the storm; for the yearly report; so that repairs can be planned; "
        "to prevent accidents; for the insurance; to keep people safe; before the season starts; "
        "to update the records; after last night's earthquake; for a scientific study; to decide what to fix first; "
        "to document the damage; for the safety audit; to spot problems early; before it reopens; "
        "to compare with last year; for the authorities; to help the planners; after the heavy rain; "
        "to estimate costs; as part of the weekly routine; for the owner; to improve efficiency; "
        "after the strong wind; to confirm a report; to assess risks; ahead of the inspection; to save resources; "
        "for an ecology project; to ensure safety; for quality control; ahead of the maintenance budget; "
        "to improve planning; to optimise the schedule; to cut losses; to target repairs; "
        "to protect the environment; to check compliance with the rules; to improve the harvest; to save water; "
        "to plan the harvest; to plan the spraying; to reduce losses; to improve soil health; to optimise planting; "
        "to prevent the spread of pests; to detect changes over time; for a health report; to raise yields; "
        "to support climate research; to measure the effect of the drought; to avoid downtime; to protect wildlife; "
        "to prepare a rescue; to guarantee good quality; to schedule watering; to gauge the impact of pollution; "
        "to keep the public informed; to find weak spots; to monitor progress; to tune the fertiliser plan; "
        "to stop theft; to test the new equipment; to advise the farmers; to prevent breakdowns; "
        "for biodiversity research"
    ),
    "move": phrases(
        "before the shift ends; so that work can go on; for the team; as soon as possible; before nightfall; "
        "without delay; within the hour; for the crew; because they are needed there; to keep the schedule; "
        "during the busy hours; for the research project; to support the mission; before the deadline; "
        "every morning; twice a day; in an emergency"
    ),
    "hands": phrases(
        "so that the staff can rest; before opening time; every morning; for the evening shift; as instructed; "
        "with care; before the guests arrive; on request; at the end of the day; for the owner; "
        "without breaking anything; in the right order"
    ),
    "field": phrases(
        "before the rain comes; this spring; after the harvest; for the cooperative; at the start of the season; "
        "this week; to raise the yield; before the frost; for the farmer; to save labour; on schedule"
    ),
}
DISTRACTORS = phrases(
    "The budget is small.; It rained last week.; The last report was lost.; We start at seven.; "
    "The team is short of people.; Results are due on Friday.; The client is in a hurry.; "
    "Please write a short summary afterwards.; A permit has been granted.; The previous attempt failed.; "
    "It may be windy.; The operator will be on call.; Time is limited to two hours.; Photos would be nice to have.; "
    "The job has been postponed twice.; Keep noise to a minimum.; The site manager knows about it.; "
    "There is no internet there.; Nobody else is available.; Costs should be kept low.; It gets dark at six.; "
    "The weather looks fine.; A second visit may follow.; The paperwork is done.; The contract ends this month.; "
    "Battery charging is possible nearby.; The region is known for its cheese.; "
    "An earlier company did this once a year.; The report goes to the ministry.; The manager will call at noon."
)
STUDIES = phrases(
    "for a science team; on a research mission; to learn about the surface; to explore remote parts; "
    "to bring home stones for the geologists; to take measurements; to look for minerals; to measure temperatures; "
    "to search for life; to find a safe route; to gather scientific data; to look for missing people; "
    "on a long expedition; to discover new sites; to study the ground; to look for signs of life; "
    "to chart unknown parts; for geological research; to scout the surroundings"
)
SHOWN = phrases(
    "the place in the picture; the place shown; the area in the image; the site in the photo; "
    "what you see in the picture; the scene in front of you; the area shown here; this place; "
    "the location in the photo; the surroundings you see; what the camera shows; the place on the screen; "
    "the spot in the image; the area you are looking at; the scene shown; the location shown; "
    "the setting in the picture"
)
SHOWN_SIGNS = phrases(
    "damage; anything unusual; changes; problems; signs of wear; hazards; faults; anything out of place; "
    "signs of trouble; risks; defects; irregularities"
)
SHOWN_LIGHT = phrases(
    "this small box; a parcel; a light package; a letter; this light bag; a small kit; a few light tools; "
    "this envelope; a light parcel; a small package; a light box; this small bag"
)
SHOWN_HEAVY = phrases(
    "this heavy crate; heavy boxes; a heavy load; a 100 kg machine; heavy parts; a heavy pallet; this heavy chest; "
    "heavy goods; a very heavy container; heavy sacks; this heavy machine; a heavy crate"
)
