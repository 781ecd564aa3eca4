"""Vocabulary: open compounds, industrial floors and halls under refit."""

from __future__ import annotations

__all__ = ["PLACES"]

_SITE_SIGNS = (
    "intruders; holes in the fence; unusual activity; leaks; trespassers; unlocked gates; wild animals; fire; "
    "vandalism; theft; blown-in rubbish; security gaps; suspicious vehicles; environmental hazards"
)
_HALL_SIGNS = (
    "blocked aisles; spilled liquid; misplaced pallets; damaged racks; oil on the floor; obstacles; broken pallets; "
    "loose goods; blocked fire exits; fallen boxes; worn floor markings"
)
_REFIT_SIGNS = (
    "cracks; damp walls; weak points; loose plaster; trip hazards; unfinished joints; missing bolts; leaks; "
    "exposed wires; mould; spalled concrete"
)


def _site(gloss: str, names: str, parts: str, scene: str = "compound", at: str = "at") -> dict[str, str]:
    return {
        "scene": scene,
        "at": at,
        "through": "across",
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": _SITE_SIGNS,
    }


def _hall(gloss: str, names: str, parts: str) -> dict[str, str]:
    return {
        "scene": "warehouse",
        "at": "in",
        "through": "through",
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": _HALL_SIGNS,
    }


def _refit(gloss: str, names: str, parts: str) -> dict[str, str]:
    return {
        "scene": "refit",
        "at": "in",
        "through": "through",
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": _REFIT_SIGNS,
    }


PLACES: dict[tuple[str, str], dict[str, str]] = {
    ("compound", "bunker"): _site(
        "a fortified or military place with open ground around it",
        "bunker site; bunker perimeter; area around the bunker; military base; army camp; bunker compound; "
        "radar station; ammunition depot; ~grounds of the fort; barracks yard; missile site; zone around the shelter",
        "perimeter; perimeter fence; entrance area; surroundings; camouflage; guard posts; gates; blast doors; "
        "outer fence; access road; sandbag walls; approach paths",
    ),
    ("compound", "solar_farm"): _site(
        "level open ground with panels or electric gear",
        "solar farm; solar park; photovoltaic field; substation; transformer yard; battery storage park; switchyard; "
        "biogas plant grounds; geothermal plant grounds; pumping station grounds",
        "panel rows; inverters; transformers; cable trenches; perimeter fence; combiner boxes; ground mounts; "
        "meters; cable covers; fence sensors",
    ),
    ("compound", "depot"): _site(
        "an open yard where goods or vehicles stand",
        "storage yard; lorry depot; tank farm; container yard; timber yard; car auction lot; bus depot; "
        "scrap metal yard fence; landfill site; recycling yard; chemical plant grounds; refinery grounds; "
        "water treatment plant grounds",
        "storage rows; tanks; perimeter; fence line; container stacks; loading bays; drain covers; gas meters; "
        "fire hydrants; boundary walls; yard lights",
    ),
    ("compound", "guarded_ground"): _site(
        "a large fenced area of level ground",
        "prison perimeter; airport perimeter; airfield grounds; embassy compound; research compound; "
        "nuclear plant grounds; border post; gated estate; zoo grounds; data centre compound; film set; test range",
        "perimeter fence; boundary wall; gates; watch towers; cameras; patrol route; security zone; surroundings; "
        "no-man's strip; fence sensors",
    ),
    ("compound", "open_field"): _site(
        "flat open land without crops",
        "open field; flat meadow without animals; sports field; golf course; open grassland site; football pitch; "
        "airstrip meadow; sensor test field; ~open fields with sensors; event meadow before the show; "
        "camp ground",
        "ground sensors; rain gauges; sensor posts; marker flags; goal posts; survey stakes; weather masts; "
        "bunker edges",
    ),
    ("compound", "frozen_lake"): _site(
        "a level sheet of ice",
        "frozen lake; frozen river; lake ice; ice road; ice rink on the lake; frozen pond; frozen bay; "
        "frozen reservoir",
        "ice thickness; ice surface; fishing holes; pressure ridges; ice markers; snow cover; ice edge",
        scene="ice",
        at="on",
    ),
    ("warehouse", "warehouse"): _hall(
        "a large hall with shelves and smooth floors",
        "warehouse; distribution centre; fulfilment centre; storage hall; high-bay warehouse; logistics hub; "
        "parcel depot; cold store; container freight hall; pallet store; logistics centre; bonded warehouse; "
        "book depot",
        "aisles; shelf rows; racking; pallet bays; loading dock; floor markings; fire doors; storage lanes; "
        "sprinkler valves; shelf labels; dock plates",
    ),
    ("warehouse", "factory"): _hall(
        "a large hall where things are made by machines",
        "factory floor; assembly hall; car factory; production line; machine hall; steel mill floor; bottling plant; "
        "print works; furniture factory; shipyard hall; textile mill; electronics plant; brewery hall; "
        "aircraft hangar; paper mill; manufacturing plant",
        "conveyor belts; machine bays; robot cells; material racks; walkways; forklift lanes; machine guards; "
        "tool cribs; press lines; stacking area",
    ),
    ("warehouse", "freight"): _hall(
        "a place where goods change vehicles",
        "airport baggage hall; mail sorting centre; loading dock; freight terminal; supermarket stock room; "
        "port shed; wholesale market hall; goods-in area; rail freight shed; cash-and-carry store; courier hub",
        "conveyors; roll cages; loading ramps; baggage belts; parcel chutes; scales; dock doors; pallet lanes",
    ),
    ("refit", "renovation"): _refit(
        "an indoor place that is being rebuilt",
        "building under renovation; office floor under renovation; gutted apartment; hotel under refurbishment; "
        "shop being refitted; school during renovation; unfinished hall; shell of the new clinic; "
        "theatre under restoration; renovation site; factory wing during rebuilding; museum wing under renovation; "
        "cinema being rebuilt",
        "new partition walls; screed; door frames; cable runs; drywall; floor slabs; ceiling grids; window openings; "
        "columns",
    ),
    ("refit", "parking_garage"): _refit(
        "a covered place where cars stand",
        "parking garage; underground car park; multi-level car park; parking deck; basement garage; "
        "park-and-ride garage; parking structure; garage level two; underground parking level; "
        "empty car park under the mall",
        "support columns; ramp joints; ceiling beams; floor coating; fire dampers; parking bays; drain gutters; "
        "pay stations",
    ),
}
"""(zone, key) -> fields of `Environment`."""
