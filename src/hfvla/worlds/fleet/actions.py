"""Vocabulary: what can be asked. A leading "*" marks a verb phrase that cannot be put into the passive.

Frames say what a verb takes: "part" (a thing found at the place), "part_for" (that, and what to look for), "place",
"place_for", "sign" (what is looked for, at the place), "cargo", "cargo_to" (with a goal), "goal" (a goal beyond the
place), "device" (a thing to be set up), "specimen" (a thing to be taken), "place_study" (the place, and what to study
there), "cross_to" (across the place to a goal), "up" (the place itself; with a goal or a check on top), "job" (the
whole phrase comes from the place or the pool).
"""

from __future__ import annotations

from hfvla.worlds.fleet.facts import Action, phrases

__all__ = ["ACTIONS", "JOBS", "ZONE_ACTIONS"]


def _action(key: str, activity: str, noun: str, frames: str, verbs: str) -> tuple[str, Action]:
    return key, Action(key, activity, noun, phrases(verbs), tuple(frames.split()))


ACTIONS: dict[str, Action] = dict(
    (
        _action(
            "inspect",
            "observe",
            "inspection",
            "part part_for part place place_for part",
            "inspect; check; examine; look over; *take a look at; *take a close look at; *carry out a check of; "
            "go over; *perform an inspection of; *conduct an inspection of; visually inspect; carefully check; "
            "scrutinise; *run a routine check of; *make a visual check of; closely examine; re-inspect; "
            "inspect and document",
        ),
        _action(
            "assess",
            "observe",
            "assessment",
            "part part part_for place",
            "assess; evaluate; *judge the state of; *find out the condition of; *determine the state of; review; "
            "analyse; *check the condition of; *report on the condition of; *evaluate the state of; analyze; "
            "*assess the condition of; rate; *determine the quality of; study; *analyse the state of",
        ),
        _action(
            "survey",
            "observe",
            "survey",
            "place part place_for place part_for",
            "survey; *make a survey of; *carry out a survey of; *get an overview of; *do a quick survey of; observe; "
            "*perform a survey of; document; record; *conduct a survey of; *collect data on; *gather data on",
        ),
        _action(
            "monitor",
            "observe",
            "monitoring",
            "part place part_for place_for",
            "monitor; watch; *keep watch over; *keep an eye on; track; *watch over; supervise; continuously monitor; "
            "*keep track of; regularly monitor; *follow changes in; *stand watch over; *observe changes in",
        ),
        _action(
            "measure",
            "observe",
            "measurement",
            "part part place",
            "measure; *take readings of; *take measurements of; scan; *gather readings on; *record measurements of; "
            "*make a thermal scan of; *take thermal images of; laser-scan; *scan and measure",
        ),
        _action(
            "map",
            "explore",
            "mapping",
            "place part place",
            "map; chart; *make a map of; *draw up a map of; *create a 3D model of; map out; reconnoitre; "
            "*build a digital map of; scan and map; *make a 3D map of",
        ),
        _action(
            "search",
            "explore",
            "search",
            "place_for place_for place",
            "search; comb; scour; *search through; *look around; sweep; *carry out a search of; *conduct a search of; "
            "*hunt through; systematically search",
        ),
        _action(
            "find",
            "explore",
            "search",
            "sign",
            "*look for; find; locate; *search for; detect; spot; *try to find; discover; *hunt for; identify; "
            "*go and look for; *look out for; *find and mark",
        ),
        _action(
            "explore",
            "explore",
            "exploration",
            "place place_study place_for",
            "explore; *scout out; scout; *make an expedition into; *investigate and map; *venture into; investigate; "
            "*carry out research in; *explore and study; *go on an expedition through",
        ),
        _action(
            "patrol",
            "observe",
            "patrol",
            "place place place_for",
            "patrol; guard; secure; *go on patrol at; *make the rounds of; *check for security at; "
            "*walk the rounds of; *stand guard over; *run a security patrol of",
        ),
        _action(
            "film",
            "observe",
            "filming",
            "part place",
            "film; photograph; *take photos of; *take pictures of; *record video of; *shoot footage of; "
            "*make a photo record of; *capture images of; *capture video of",
        ),
        _action(
            "count",
            "observe",
            "count",
            "part",
            "count; *take stock of; *keep count of; *estimate the number of; register; *make a list of; "
            "*compile a list of",
        ),
        _action(
            "fly_over",
            "observe",
            "flight",
            "place part place_for",
            "*fly over; overfly; *hover above; *fly a survey over; *fly along; *circle above; *take aerial photos of; "
            "*hover over; *take drone pictures of; *make an aerial survey of; *capture aerial footage of; "
            "*fly around; *do an aerial inspection of; *use a UAV to view; *provide aerial surveillance of; "
            "*fly in circles above; *use aerial images to check; *fly above; *get an aerial view of; "
            "*capture overhead images of",
        ),
        _action(
            "dive",
            "explore",
            "dive",
            "place part place_for",
            "*dive to; *swim along; *dive down to; *swim around; *explore under water; *dive along; "
            "*inspect while diving; *dive and examine; *swim down to",
        ),
        _action(
            "sample",
            "take",
            "sampling",
            "specimen",
            "collect; take; gather; retrieve; *bring back; pick up; *take home; extract; fetch; bag; "
            "*collect and bring back; *pick up and return with; *go and collect",
        ),
        _action(
            "soil_sample",
            "take",
            "soil sampling",
            "soil",
            "sample; probe; test; *take samples for; *take probes for; *measure on the ground; "
            "*collect samples to test; *insert a probe to measure; *test and log; check by sampling; "
            "*perform sampling for; *draw samples for",
        ),
        _action(
            "place",
            "place",
            "installation",
            "device",
            "place; install; set up; *put in place; plant; fix; mount; *set down; anchor; position; "
            "*set up and anchor; deploy",
        ),
        _action(
            "carry",
            "carry",
            "transport",
            "cargo cargo_to cargo_to",
            "carry; transport; bring; take; move; lug; ferry; transfer; *pick up and bring; convey; *carry safely; "
            "*bring safely; *pick up and carry; shuttle; relocate",
        ),
        _action(
            "haul",
            "carry",
            "haulage",
            "heavy heavy_to heavy_to",
            "haul; transport; move; carry; *haul away; drag; shift; pull; *move and stack; heave; *haul over; lug; "
            "*drag away",
        ),
        _action(
            "deliver",
            "carry",
            "delivery",
            "cargo_to cargo_to cargo",
            "deliver; bring; supply; take; *make a delivery of; courier; dispatch; *drop off; rush; "
            "*deliver without delay; *bring and drop off; hand-carry; send",
        ),
        _action(
            "airlift",
            "carry",
            "air delivery",
            "airlift",
            "fly; airlift; *lift by air; *deliver by air; *drop from the air; *carry by air; *fly in; *bring by air",
        ),
        _action(
            "reach",
            "reach",
            "journey",
            "goal goal cross_to",
            "reach; *get to; *walk to; *make your way to; *travel to; *find a way to; *navigate to; "
            "*go all the way to; *head for; *proceed to; *push through to; *trek to; *journey to",
        ),
        _action(
            "traverse",
            "explore",
            "crossing",
            "place place_study place_study",
            "cross; traverse; *travel across; *journey across; *move across; *travel over; *make a crossing of; "
            "*move over; *navigate across; *trek across",
        ),
        _action(
            "drive",
            "reach",
            "drive",
            "place cross_to place_for",
            "*drive across; *drive along; *roll along; *travel along; *drive over; *cruise along; *roll across; "
            "*ride along; *travel at speed over; *do a long drive over",
        ),
        _action(
            "climb",
            "climb",
            "climb",
            "up up_goal up_check",
            "climb; *climb up; ascend; *go up; *walk up; scale; *clamber up; *make the climb up; "
            "*climb to the top of; *descend; *climb down; *work a way up; mount; *navigate; *step up",
        ),
        _action("handle", "hands", "manual work", "job", ""),
        _action("serve", "hands", "service", "job", ""),
        _action("pick", "hands", "picking", "job", ""),
        _action("operate", "hands", "operation", "job", ""),
        _action("fieldwork", "fieldwork", "field work", "job", ""),
    )
)
"""Every action by key."""

_LOOK = "inspect assess survey monitor measure map film find"
_ZONE_TEXT: dict[str, str] = {
    "tall": f"{_LOOK} count search fly_over airlift",
    "wide": f"{_LOOK} count search patrol fly_over",
    "rough": f"{_LOOK} explore search patrol traverse count fly_over sample place carry haul deliver reach climb",
    "stairs": "inspect assess measure film find carry haul deliver climb climb climb",
    "underground": f"{_LOOK} explore search sample place carry haul deliver reach",
    "sand": f"{_LOOK} explore search patrol traverse drive sample place carry haul deliver reach fly_over",
    "paved": "inspect assess survey patrol map carry haul deliver reach traverse drive fly_over measure",
    "field": f"{_LOOK} patrol count fly_over soil_sample haul carry fieldwork",
    "orchard": f"{_LOOK} patrol count fly_over soil_sample haul carry fieldwork pick pick",
    "pasture": f"{_LOOK} patrol count fly_over soil_sample haul carry fieldwork",
    "growing house": "inspect assess monitor measure handle handle operate haul",
    "wild garden": "inspect assess survey monitor map film find search explore patrol",
    "compound": f"{_LOOK} patrol patrol search fly_over haul carry",
    "building": "inspect assess monitor measure patrol find carry carry deliver deliver reach haul handle operate",
    "workplace": "inspect assess monitor handle handle handle serve serve operate",
    "crowd": "carry carry deliver deliver reach traverse serve serve",
    "refit": f"{_LOOK} patrol search carry carry deliver haul",
    "warehouse": "inspect assess monitor map patrol film find count carry carry deliver haul haul reach",
    "water": f"{_LOOK} explore search patrol count dive dive sample place",
    "water and air": "inspect assess survey monitor measure map film find search fly_over",
    "bank": "inspect assess survey monitor measure map film find explore",
}
ZONE_ACTIONS: dict[str, tuple[str, ...]] = {zone: tuple(text.split()) for zone, text in _ZONE_TEXT.items()}
"""What can be asked in a zone; repeats make an action more frequent."""

_OPERATE = phrases(
    "turn the valves by hand; open the heavy doors; press the buttons in order; tighten the screws; "
    "unlock the doors with a key; replace the light bulbs; use a screwdriver on the loose panel; plug in the cables; "
    "change the filters; wipe down the surfaces; open the cabinets and sort what is inside; pull the levers; "
    "repair the broken handle; fix the dripping tap; swap the empty gas bottle; reset the switches; "
    "assemble the new shelf; mend the torn cover; operate the hand pump; use tools to loosen the bolts; "
    "connect the hoses; stack the cups; turn the crank; mop the corners with a cloth; unscrew the lid; "
    "put on the protective cover; open the windows; fasten the clips; sort the small parts; "
    "clean the glass with a sponge; hang the signs; type in the door code; adjust the knobs; tie the cords; "
    "use the hand drill to fix the bracket; handle the fragile glassware; fit the new lock; paint the door; "
    "repair the equipment with hand tools; manipulate the controls; flip the breakers; change the batteries"
)
JOBS: dict[str, tuple[str, ...]] = {"operate": _OPERATE}
"""Complete verb phrases of actions that do not take them from the place."""
