"""Vocabulary: workplaces that need hands, and crowds. "handle" stays in one spot, "serve" goes between people."""

from __future__ import annotations

__all__ = ["PLACES"]


def _work(gloss: str, names: str, equipment: str, handle: str, serve: str) -> dict[str, str]:
    return {
        "scene": "workplace",
        "at": "in",
        "through": "through",
        "gloss": gloss,
        "names": names,
        "equipment": equipment,
        "handle": handle,
        "serve": serve,
        "signs": "faults; wear; leaks; overheating; dirt; missing parts; strange noise; expired items; loose cables",
    }


def _crowd(gloss: str, names: str, serve: str, at: str = "at") -> dict[str, str]:
    return {
        "scene": "crowd",
        "at": at,
        "through": "through",
        "gloss": gloss,
        "names": names,
        "serve": serve,
        "signs": "lost children; forgotten luggage; pickpockets",
    }


PLACES: dict[tuple[str, str], dict[str, str]] = {
    ("workplace", "kitchen"): _work(
        "a room where food is made",
        "kitchen; restaurant kitchen; canteen kitchen; bakery; catering kitchen; food truck kitchen; galley; "
        "pastry shop; school kitchen; ice cream parlour",
        "ovens; fridges; extractor hood; dishwashers; gas taps; freezers; fryers; dough mixer; cooling cells",
        "cook a pot of soup; chop the vegetables; knead the dough; fry eggs; plate the desserts; stir the sauce; "
        "peel potatoes; load the dishwasher; decorate the cake; slice the bread; season and grill the fish; "
        "fill the pastry bags; roll sushi; wash the pans; open tins and jars; crack eggs into a bowl; "
        "prepare breakfast; bake bread rolls",
        "bring tasting spoons to the chefs; hand out lunch to the staff at their stations; serve soup to the pupils",
    ),
    ("workplace", "restaurant"): _work(
        "a place where people eat, drink or stay",
        "restaurant; hotel lobby; cafe; bar; dining room; banquet hall; hotel restaurant; coffee shop; "
        "reception desk; spa; cruise ship lounge; bistro; wedding venue",
        "coffee machines; beer taps; wine coolers; card readers; ice maker; sound system; candle holders; "
        "heating lamps",
        "lay the tables; mix cocktails; pour wine; polish the glasses; fold napkins; arrange the flowers; "
        "light the candles; brew espresso; open the wine bottles; iron the tablecloths; prepare the buffet; "
        "shake hands and check in arrivals",
        "serve drinks to the guests; take orders from table to table; carry plates to the diners; "
        "greet guests and show them to their seats; bring the bill to customers; escort guests to their rooms; "
        "bring luggage to the guests' rooms; offer snacks to waiting visitors; "
        "bring breakfast trays to the hotel guests",
    ),
    ("workplace", "care_home"): _work(
        "a place where people are cared for",
        "care home; nursing home; hospital ward; patient room; hospice; children's ward; elderly woman's flat; "
        "dementia ward; day care centre; physiotherapy room; emergency ward; dental practice; recovery room",
        "patient monitors; infusion pumps; hospital beds; call buttons; lifting hoists; blood pressure gauges; "
        "wheelchairs; oxygen bottles",
        "change a bandage; lift a patient from bed to chair; feed a patient with a spoon; comb a resident's hair; "
        "take a patient's blood pressure; help a patient to sit up; turn a bedridden patient; "
        "button up a patient's shirt; massage stiff shoulders; bathe a patient; put on compression stockings; "
        "hold a patient's hand during treatment; open pill bottles and sort the tablets",
        "bring medicine to patients; hand out meals to patients; walk residents to the dining room; "
        "deliver pills to the elderly; accompany patients to their examination; "
        "bring water and blankets to patients; visit residents in their rooms; guide visitors to the ward; "
        "deliver medication from bed to bed; help residents walk to the garden; "
        "give medical supplies to the nurses in person",
    ),
    ("workplace", "home"): _work(
        "rooms where people live",
        "living room; family home; apartment; bedroom; bathroom; children's room; holiday flat; student flat; "
        "laundry room; grandmother's house; farmhouse kitchen; garage workshop at home; smart home",
        "washing machine; smoke alarms; radiators; gas meter; dishwasher; water boiler; light fittings; fridge",
        "fold the laundry; iron the shirts; tidy up the toys; make the bed; set the table; wash the dishes by hand; "
        "hang up the curtains; assemble a bookshelf; change a light bulb; scrub the bath tub; put away the groceries; "
        "sew on a button; wrap the presents; clean the windows; polish the shoes; unpack the shopping bags; "
        "open the front door with a key; put the books on the shelf; assemble flat-pack furniture",
        "bring tea to the grandparents; walk the children to bed; help an old man up and down the hall; "
        "bring snacks to the guests; deliver a tray to the person upstairs; answer the door and lead visitors in",
    ),
    ("workplace", "laboratory"): _work(
        "a room for experiments and tests",
        "laboratory; chemistry lab; research lab; biology lab; clean room; pharmacy; blood bank; pathology lab; "
        "forensic lab; optics lab; university lab; medical lab; testing lab; food lab; vaccine laboratory",
        "fume hoods; centrifuges; freezers; incubators; gas bottles; eye wash stations; microscopes; spectrometers; "
        "autoclaves",
        "pipette the samples; load the centrifuge; label the test tubes; mix the reagents; "
        "handle hazardous chemicals with tongs; swap the gas bottle; prepare microscope slides; open the glove box; "
        "stir the solution; cap the vials; fill the sample tubes; adjust the microscope; wash the glassware; "
        "clamp the flask; count the pills into bottles; calibrate the scales; dissect a sample; weigh out powders; "
        "connect the hoses",
        "bring prepared samples to the researchers; hand over vials to the doctors; "
        "collect blood samples from patients; show students round the benches",
    ),
    ("workplace", "workshop"): _work(
        "a room where things are built or repaired by hand",
        "workshop; repair shop; car repair shop; tool room; carpentry; bicycle shop; joinery; watchmaker's bench; "
        "locksmith's workshop; sewing room; electronics bench; maintenance shop; theatre workshop; maker space",
        "lathes; drill press; compressor; welding set; band saw; work lights; car lift; dust extractor",
        "screw the panels together; hammer in the nails; drill holes with a hand drill; weld the bracket; "
        "saw the boards; tighten the bolts with a spanner; assemble the gearbox; solder the circuit board; "
        "change a tyre; sand the table top; glue the chair leg; paint the frame with a brush; replace the drill bit; "
        "use a screwdriver to open the housing; sew the curtains; cut the cable and strip it; file the key; "
        "fit the bearings; operate the drill press; use power tools",
        "hand tools to the mechanics; bring spare parts to the technicians in person; "
        "assist workers from bench to bench",
    ),
    ("workplace", "shop"): _work(
        "a place where things are sold",
        "shop; clothes shop; supermarket; bookshop; shoe shop; checkout counter; toy store; corner shop; post office; "
        "flower shop; jewellery shop; department store; chemist's; gift shop; optician's",
        "cash registers; freezers; scanners; anti-theft gates; display lights; cooling shelves; scales; "
        "card terminals",
        "stock the shelves; fold the sweaters; dress the mannequins; wrap the gifts; scan the goods at the till; "
        "bag groceries; price-tag the shirts; arrange the shop window; restock the fridge; hang up the dresses; "
        "sort the letters; tie flower bouquets; put products on the top shelf; unpack boxes and fill the shelves",
        "help customers try on shoes; hand free samples to shoppers; show customers to the right shelf; "
        "bring sizes to customers in the fitting rooms; assist elderly shoppers with their baskets; "
        "give advice to customers",
    ),
    ("workplace", "control_room"): _work(
        "a room full of controls, or a post that people operate",
        "control room; nuclear control room; ship's bridge; cockpit; power station control room; signal box; "
        "switch room; recording studio; projection room; broadcast studio; machine operator's cabin; "
        "theatre backstage; reactor control desk",
        "control panels; gauges; alarm panels; switchboards; monitors; indicator lamps; radio sets; mixing desk",
        "press the emergency stop; turn the control knobs; pull the levers; flip the switches; "
        "operate the control panel; push the start button; type in the access code; open the heavy steel door; "
        "turn the hand wheel; plug in the microphones; unlock the key cabinet; operate the touch screen; "
        "reset the tripped breakers; turn the valve by hand; operate machines made for people; set the dials",
        "bring headsets to the operators; guide a tour group of visitors; "
        "hand shift reports to the operators in person",
    ),
    ("crowd", "campus"): _crowd(
        "grounds of a school full of walking students",
        "university campus; college campus; crowded campus; schoolyard; busy campus square; campus at lecture change; "
        "student quarter; campus walkway full of students",
        "hand out maps to new students; guide freshmen to the lecture hall; give leaflets to students; "
        "serve coffee to waiting students; bring lunch boxes to the lecturers in person",
    ),
    ("crowd", "mall"): _crowd(
        "a place full of shoppers",
        "shopping mall; crowded mall; street market; market square; bazaar; packed shopping street; pedestrian zone; "
        "Christmas market; food market; mall at peak hours; flea market; crowded market hall",
        "hand out flyers to shoppers; give samples to passers-by; carry shopping bags for elderly customers; "
        "guide blind shoppers; serve food to market visitors; hand over parcels to shop owners; "
        "deliver lunch to the stall keepers in person; distribute vouchers to customers",
        "in",
    ),
    ("crowd", "station"): _crowd(
        "a place full of travellers",
        "railway station; airport terminal; departure hall; bus station; subway platform; crowded platform; "
        "arrivals hall; ferry terminal; check-in area; busy train station; metro concourse",
        "guide passengers to their gate; carry suitcases for elderly travellers; "
        "hand out water bottles to stranded passengers; help a family with their luggage; show tourists the way; "
        "give boarding cards to passengers; push a wheelchair to the gate",
    ),
    ("crowd", "fair"): _crowd(
        "a place full of visitors to an event",
        "trade fair; fairground; convention hall; indoor stadium; concert hall foyer; street festival; "
        "sports arena concourse; museum full of visitors; carnival; comic convention; expo hall; "
        "crowded stadium stands; town festival; amusement park",
        "serve drinks to spectators; hand programmes to visitors; sell popcorn to the fans; "
        "guide visitors to their seats; give first aid to visitors; welcome delegates and hand them badges; "
        "bring food supplies to the fans in the stands; distribute water to runners; collect tickets from visitors",
    ),
    ("crowd", "crowded_street"): _crowd(
        "a way in a city full of people on foot",
        "crowded pavement; busy pedestrian area; sidewalk full of people; packed city square; dense old-town alleys; "
        "crowded street; busy crosswalk; refugee camp; queue at the border; busy bus stop; narrow crowded alley",
        "hand out blankets to homeless people; distribute food parcels to refugees; help an old lady over the street; "
        "give directions to tourists; hand meals to people in the queue; deliver a warm meal to people's doors",
        "on",
    ),
}
"""(zone, key) -> fields of `Environment`."""
