"""Everyday things, as figures in the language of `vocabulary`: to add a kind, add a line."""

from extractlib.data.drawn.vocabulary import read_figures

DISCS = """
cookie = tan brown: ellipse 0 0 .75 .75 main; ellipse 0 0 .62 .62 light; dots 7 .5 .1 brown
biscuit = cream tan: star 14 0 0 .78 .06 main; ellipse 0 0 .5 .5 light; dots 4 .3 .06 brown
gold coin = gold: ellipse 0 0 .75 .75 dark; ellipse 0 0 .66 .66 main; star 5 0 0 .42 .25 dark
silver coin = silver: ellipse 0 0 .75 .75 dark; ellipse 0 0 .64 .64 main; box 0 0 .12 .38 dark; box 0 0 .3 .1 dark
button = red blue green violet black: ellipse 0 0 .7 .7 main; ring 0 0 .52 .05 dark; dots4 .17 .08 black
red planet = red orange: ellipse 0 0 .75 .75 main; dots 6 .55 .12 dark; dots 3 .5 .07 light
banded planet = tan orange cream: ellipse 0 0 .75 .75 main; stripes 9 0 dark; ellipse .25 .25 .14 .09 red
ringed planet = gold tan sky: ellipse 0 0 .5 .5 main; stripes 8 0 dark; stroke -.9 .3 .9 -.3 .07 light
blue planet = blue: ellipse 0 0 .75 .75 main; dots 5 .55 .2 green; ellipse 0 -.66 .3 .1 white
moon = silver grey: ellipse 0 0 .75 .75 main; dots 6 .55 .13 dark; dots 4 .5 .06 dark
crescent = cream yellow: crescent 0 0 .75 .35 main
sun = yellow orange: star 12 0 0 .85 .16 main; ellipse 0 0 .5 .5 light
pizza = tan: ellipse 0 0 .8 .8 brown; ellipse 0 0 .7 .7 yellow; dots 7 .52 .13 red; dots 3 .5 .06 green
doughnut = pink brown cream: ring 0 0 .5 .28 tan; ring 0 0 .5 .22 main; dots 6 .55 .05 white
plate = white sky cream: ellipse 0 0 .8 .8 main; ring 0 0 .6 .04 dark; ellipse 0 0 .45 .45 light
clock = white cream: ellipse 0 0 .78 .78 slate; ellipse 0 0 .66 .66 main; stroke 0 0 0 -.5 .05 black;
    stroke 0 0 .32 .12 .05 black
record = black: ellipse 0 0 .8 .8 main; ring 0 0 .6 .02 grey; ring 0 0 .45 .02 grey; ellipse 0 0 .26 .26 red;
    ellipse 0 0 .05 .05 white
compass = white: ellipse 0 0 .75 .75 gold; ellipse 0 0 .6 .6 main; stroke 0 0 0 -.45 .09 red;
    stroke 0 0 0 .45 .09 slate
tennis ball = lime yellow: ellipse 0 0 .7 .7 main; +ring -.75 0 .55 .05 white; +ring .75 0 .55 .05 white
football = white: ellipse 0 0 .72 .72 main; +polygon 5 0 0 .28 0 black; +ellipse 0 -.66 .2 .2 black;
    +ellipse .6 -.2 .2 .2 black; +ellipse .4 .55 .2 .2 black; +ellipse -.4 .55 .2 .2 black;
    +ellipse -.6 -.2 .2 .2 black
basketball = orange: ellipse 0 0 .74 .74 main; +stroke -.74 0 .74 0 .03 black; +stroke 0 -.74 0 .74 .03 black;
    +ring -.85 0 .6 .03 black; +ring .85 0 .6 .03 black
marble = teal violet blue: ellipse 0 0 .65 .65 main; stroke -.3 .3 .3 -.3 .12 second; ellipse -.25 -.3 .14 .1 white
dartboard = red: ellipse 0 0 .8 .8 black; ring 0 0 .62 .12 cream; ring 0 0 .4 .1 main; ellipse 0 0 .2 .2 green;
    ellipse 0 0 .08 .08 main
wheel = black: ring 0 0 .64 .16 main; ring 0 0 .42 .05 silver; stroke -.4 0 .4 0 .04 silver;
    stroke 0 -.4 0 .4 .04 silver
orange slice = orange: ellipse 0 0 .75 .75 main; ellipse 0 0 .66 .66 cream; ellipse 0 0 .6 .6 main;
    stroke -.6 0 .6 0 .03 cream; stroke -.3 -.5 .3 .5 .03 cream; stroke .3 -.5 -.3 .5 .03 cream
ladybird = red orange: ellipse 0 -.5 .3 .25 black; ellipse 0 .1 .62 .62 main; stroke 0 -.45 0 .7 .03 black;
    dots 6 .45 .11 black
"""

PLANTS_AND_FOOD = """
apple = red green: stroke 0 -.5 .1 -.85 .05 brown; ellipse .25 -.72 .18 .08 green; ellipse -.22 .08 .42 .52 main;
    ellipse .22 .08 .42 .52 main; ellipse -.3 -.1 .1 .16 light
pear = lime yellow: stroke 0 -.6 .1 -.9 .04 brown; ellipse 0 .3 .52 .5 main; ellipse 0 -.25 .3 .42 main
banana = yellow: crescent 0 -.2 .8 .45 main; stroke -.6 .1 -.68 .0 .06 brown
cherries = red maroon: stroke -.3 .3 .1 -.7 .03 green; stroke .35 .4 .1 -.7 .03 green; ellipse -.3 .4 .3 .3 main;
    ellipse .38 .45 .3 .3 main
strawberry = red: polygon 3 0 .05 .85 -1.571 main; ellipse 0 -.25 .55 .3 main; dots 6 .35 .05 yellow;
    star 5 0 -.5 .38 .3 green
carrot = orange: stroke 0 -.4 -.1 -.85 .06 green; stroke 0 -.4 .12 -.85 .06 green; wedge 0 .85 .26 -.45 main
pumpkin = orange: stroke 0 -.4 .06 -.75 .08 green; ellipse 0 .1 .78 .56 main; ring 0 .1 .5 .03 dark;
    ellipse 0 .1 .24 .55 light
watermelon = red: bowl 0 -.25 .85 .85 green; bowl 0 -.25 .76 .76 white; bowl 0 -.25 .68 .68 main; dots 5 .4 .05 black
egg = cream white tan: ellipse 0 .05 .5 .65 main; ellipse -.15 -.15 .14 .2 light
fried egg = white: star 5 0 0 .75 .08 main; ellipse .05 0 .32 .32 yellow
ice cream = pink brown cream: wedge 0 .95 .34 0 tan; ellipse -.2 -.1 .28 .28 main; ellipse .2 -.1 .28 .28 second;
    ellipse 0 -.42 .3 .3 main
cupcake = pink cream violet: trapezoid 0 .45 .42 .35 .4 brown; dome 0 .15 .55 .6 main; dots 5 .35 .06 white;
    ellipse 0 -.5 .11 .11 red
burger = tan: dome 0 -.05 .7 .55 main; box 0 .02 .75 .06 green; box 0 .14 .7 .09 brown; box 0 .25 .72 .04 yellow;
    box 0 .42 .66 .13 main
bottle = green brown sky: box 0 .25 .3 .6 main; ellipse 0 -.35 .3 .25 main; box 0 -.65 .11 .25 main;
    box 0 .25 .3 .2 cream
wine glass = sky silver: bowl 0 -.55 .45 .75 main; bowl 0 -.3 .38 .48 maroon; box 0 .45 .04 .3 main;
    box 0 .78 .32 .05 main
mug = white red blue: ring .45 .05 .24 .07 main; box 0 .05 .42 .5 main; ellipse 0 -.45 .42 .1 dark
teapot = sky pink white: ring -.6 .05 .25 .06 main; stroke .4 .2 .85 -.25 .09 main; ellipse 0 .15 .52 .45 main;
    ellipse 0 -.32 .28 .08 dark; ellipse 0 -.45 .1 .1 dark
round tree = green lime: box 0 .6 .1 .35 brown; ellipse 0 -.15 .6 .58 main; ellipse -.2 -.3 .2 .18 light
fir = green teal: box 0 .8 .08 .2 brown; wedge 0 -.9 .3 -.3 main; wedge 0 -.6 .45 .15 main; wedge 0 -.3 .6 .65 main
palm = green: stroke 0 .9 .12 -.3 .07 brown; stroke .1 -.35 -.6 -.1 .08 main; stroke .1 -.35 .75 -.1 .08 main;
    stroke .1 -.35 -.35 -.75 .08 main; stroke .1 -.35 .55 -.75 .08 main
cactus = green: stroke 0 .6 0 -.6 .17 main; stroke -.45 .1 -.45 -.25 .1 main; stroke -.45 .1 0 .1 .09 main;
    stroke .42 -.1 .42 -.45 .1 main; stroke .42 -.1 0 -.1 .09 main; box 0 .78 .3 .18 orange
daisy = white yellow pink: stroke 0 0 0 .95 .05 green; star 9 0 -.2 .62 .2 main; ellipse 0 -.2 .2 .2 gold
tulip = red yellow violet: stroke 0 0 0 .95 .06 green; ellipse .2 .5 .1 .35 green; bowl 0 -.55 .4 .75 main;
    wedge -.25 -.8 .16 -.4 main; wedge .25 -.8 .16 -.4 main; wedge 0 -.85 .16 -.4 main
sunflower = yellow: stroke 0 0 0 .95 .06 green; star 15 0 -.2 .7 .14 main; ellipse 0 -.2 .36 .36 brown
leaf = green orange red: stroke 0 .5 0 .95 .04 brown; ellipse 0 0 .42 .75 main; stroke 0 -.65 0 .6 .03 dark
red mushroom = red: box 0 .4 .18 .4 cream; dome 0 .2 .75 .8 main; dots 5 .45 .1 white
brown mushroom = brown tan: box 0 .45 .2 .4 cream; dome 0 .15 .7 .5 main
"""

PLACES_AND_VEHICLES = """
house = white cream tan: box 0 .35 .6 .45 main; wedge 0 -.85 .75 -.08 red; box 0 .5 .13 .3 brown;
    box -.35 .25 .12 .12 sky; box .35 .25 .12 .12 sky
church = cream silver: box .15 .4 .5 .4 main; wedge .15 -.3 .58 .02 slate; box -.5 .1 .2 .7 main;
    wedge -.5 -.98 .24 -.55 slate; box .2 .55 .12 .25 brown
castle = grey silver: box 0 .35 .7 .45 main; box -.65 -.05 .17 .55 main; box .65 -.05 .17 .55 main;
    box 0 -.25 .1 .15 main; dome 0 .8 .18 .4 black
tower block = slate silver sky: box 0 0 .4 .95 main; checks 9 0 yellow
tent = orange green blue: wedge 0 -.7 .85 .7 main; wedge 0 -.2 .28 .7 black
lighthouse = white: trapezoid 0 .2 .2 .34 .65 main; stripes 7 0 red; box 0 -.55 .18 .12 yellow;
    dome 0 -.65 .22 .22 slate
windmill = cream white: trapezoid 0 .35 .22 .4 .55 main; stroke -.55 -.75 .55 .35 .06 brown;
    stroke .55 -.75 -.55 .35 .06 brown
bus = red yellow blue: box 0 0 .9 .45 main; box 0 -.15 .8 .14 sky; box 0 .15 .9 .03 light;
    ellipse -.5 .45 .18 .18 black; ellipse .5 .45 .18 .18 black
van = white blue green: box -.2 .05 .65 .4 main; box .55 .2 .3 .25 main; box .55 .05 .18 .12 sky;
    ellipse -.45 .45 .17 .17 black; ellipse .5 .45 .17 .17 black
locomotive = black green red: box .1 .1 .6 .25 main; box -.55 -.1 .25 .45 main; box -.55 -.2 .14 .14 sky;
    box .5 -.35 .09 .25 black; ellipse -.45 .5 .2 .2 maroon; ellipse 0 .5 .2 .2 maroon; ellipse .45 .5 .2 .2 maroon
tractor = green red: box .3 .05 .45 .22 main; box -.25 -.25 .3 .4 main; box -.25 -.3 .2 .2 sky;
    ellipse -.4 .35 .42 .42 black; ellipse -.4 .35 .18 .18 yellow; ellipse .55 .5 .24 .24 black
bicycle = red blue black: ring -.5 .3 .33 .05 black; ring .5 .3 .33 .05 black; stroke -.5 .3 0 -.25 .04 main;
    stroke 0 -.25 .35 -.3 .04 main; stroke .5 .3 .35 -.4 .04 main; stroke -.05 .3 .35 -.3 .04 main;
    stroke -.15 -.35 .05 -.35 .05 black
sailing boat = white orange: wedge -.3 -.9 .35 .25 main; wedge .3 -.65 .3 .25 second; box 0 -.2 .03 .6 brown;
    bowl 0 .35 .75 .4 brown
rocket = white silver: wedge -.3 .2 .3 .75 red; wedge .3 .2 .3 .75 red; ellipse 0 0 .28 .75 main;
    ellipse 0 -.25 .12 .12 sky; wedge 0 .98 .14 .7 orange
balloon = red yellow violet: stroke -.2 .2 -.12 .6 .03 brown; stroke .2 .2 .12 .6 .03 brown;
    ellipse 0 -.25 .55 .6 main; stripes 7 1.57 second; box 0 .72 .17 .13 brown
helicopter = navy red green: stroke -.2 0 -.9 -.15 .07 main; ellipse .15 .1 .45 .35 main; ellipse .35 .02 .2 .2 sky;
    stroke -.6 -.45 .9 -.45 .04 grey; box .15 -.35 .04 .12 grey; stroke -.2 .6 .55 .6 .04 grey
"""

HOUSEHOLD = """
hammer = brown: stroke 0 -.4 0 .85 .09 main; box .02 -.55 .45 .17 slate
saw = silver: box .2 0 .7 .14 main; stripes 22 1.57 dark; ring -.65 0 .2 .09 orange
key = gold silver: ring -.45 0 .28 .1 main; box .3 0 .5 .08 main; box .5 .17 .06 .14 main; box .72 .17 .06 .12 main
scissors = red blue black: stroke -.3 .3 .5 -.7 .07 silver; stroke .3 .3 -.5 -.7 .07 silver;
    ring -.4 .55 .24 .08 main; ring .4 .55 .24 .08 main
umbrella = red navy yellow: stroke 0 -.1 0 .75 .04 brown; stroke 0 .78 .2 .78 .04 brown; dome 0 .05 .85 .8 main;
    stripes 8 1.57 second
lamp = yellow cream orange: box 0 .4 .05 .45 brown; box 0 .85 .3 .06 brown; trapezoid 0 -.35 .28 .6 .35 main
candle = cream red white: box 0 .35 .18 .5 main; box 0 -.2 .02 .1 black; ellipse 0 -.42 .1 .2 orange;
    ellipse 0 -.37 .05 .1 yellow
chair = brown red teal: box -.35 -.3 .07 .6 main; box 0 .2 .42 .08 main; box -.35 .6 .07 .35 dark;
    box .35 .6 .07 .35 dark
armchair = red green violet: box 0 -.1 .5 .5 dark; box 0 .35 .75 .22 main; box -.65 .2 .16 .4 main;
    box .65 .2 .16 .4 main; box -.5 .7 .06 .1 black; box .5 .7 .06 .1 black
table = brown tan: box 0 -.15 .9 .09 main; box -.7 .35 .07 .5 dark; box .7 .35 .07 .5 dark
bed = blue pink green: box -.85 .05 .06 .55 brown; box .85 .25 .06 .35 brown; box 0 .3 .8 .2 main;
    ellipse -.55 .05 .25 .12 white
book = red navy green: box 0 0 .55 .72 dark; box .05 0 .5 .66 main; box -.45 0 .05 .72 light;
    box .08 -.25 .28 .08 cream
envelope = white cream: box 0 0 .8 .5 main; stroke -.78 -.48 0 .1 .03 grey; stroke .78 -.48 0 .1 .03 grey;
    box .55 -.3 .12 .1 red
telephone = black red: dome 0 .6 .7 .85 main; ellipse 0 .25 .25 .25 white; stroke -.65 -.35 .65 -.35 .15 dark;
    ellipse -.65 -.25 .2 .16 dark; ellipse .65 -.25 .2 .16 dark
laptop = silver slate: box 0 -.2 .65 .45 main; box 0 -.2 .57 .37 sky; trapezoid 0 .45 .68 .88 .12 dark
television = slate brown: stroke -.1 -.5 -.4 -.95 .03 grey; stroke .1 -.5 .4 -.95 .03 grey; box 0 .1 .82 .58 main;
    box -.12 .1 .58 .44 teal; ellipse .65 0 .08 .08 white
guitar = orange brown: stroke .15 -.2 .6 -.85 .07 black; ellipse -.3 .4 .42 .38 main; ellipse 0 .05 .3 .28 main;
    ellipse -.15 .22 .13 .13 black
drum = red blue: box 0 .15 .6 .45 main; box 0 -.28 .64 .07 gold; box 0 .55 .64 .07 gold; ellipse 0 -.35 .6 .16 cream;
    stroke -.1 -.4 -.6 -.9 .04 brown
bell = gold: dome 0 .35 .55 1.0 main; box 0 .4 .68 .09 dark; ellipse 0 .58 .13 .13 dark; ellipse 0 -.7 .1 .1 dark
crown = gold: box 0 .4 .65 .18 main; wedge -.5 -.5 .22 .35 main; wedge 0 -.6 .26 .35 main; wedge .5 -.5 .22 .35 main;
    dots3 .4 .07 red
top hat = black violet: box 0 -.1 .42 .55 main; box 0 .25 .42 .1 red; ellipse 0 .48 .8 .12 main
shirt = sky white red: box 0 .2 .42 .6 main; stroke -.35 -.3 -.75 .1 .17 main; stroke .35 -.3 .75 .1 .17 main;
    wedge 0 -.1 .15 -.42 cream
trousers = navy slate brown: box 0 -.55 .4 .2 main; stroke -.22 -.4 -.28 .8 .17 main; stroke .22 -.4 .28 .8 .17 main;
    box 0 -.7 .4 .06 dark
boot = brown black red: box -.25 -.15 .28 .65 main; stroke -.2 .45 .5 .5 .2 main; box .1 .72 .6 .08 black
sock = red green white: stroke -.2 -.7 -.2 .3 .22 main; stroke -.2 .4 .4 .55 .22 main; stripes 14 0 second
spectacles = black red: ring -.42 0 .32 .07 main; ring .42 0 .32 .07 main; stroke -.12 -.05 .12 -.05 .05 main
rucksack = red green blue: ring 0 -.65 .22 .06 dark; box 0 .1 .55 .65 main; ellipse 0 -.5 .55 .25 main;
    box 0 .35 .38 .25 light; box 0 -.1 .5 .04 dark
present = red green violet: box 0 .2 .65 .55 main; box 0 .2 .1 .55 gold; box 0 -.25 .7 .12 dark;
    ellipse -.2 -.5 .2 .12 gold; ellipse .2 -.5 .2 .12 gold
hourglass = sky: wedge 0 0 .4 .7 main; funnel 0 0 .4 .7 main; wedge 0 .3 .26 .7 tan; box 0 -.75 .5 .07 brown;
    box 0 .75 .5 .07 brown
ladder = tan brown: stroke -.35 -.9 -.35 .9 .06 main; stroke .35 -.9 .35 .9 .06 main; box 0 -.6 .32 .05 main;
    box 0 -.2 .32 .05 main; box 0 .2 .32 .05 main; box 0 .6 .32 .05 main
die = white red: box 0 0 .6 .6 main; dots4 .33 .1 black; ellipse 0 0 .1 .1 black
chessboard = white: box 0 0 .8 .8 main; checks 11.8 0 black
playing card = white: box 0 0 .5 .75 main; polygon 4 0 0 .3 .785 red; ellipse -.36 -.6 .06 .06 red;
    ellipse .36 .6 .06 .06 red
kite = red yellow blue: stroke 0 .5 .3 .98 .03 grey; polygon 4 0 -.15 .65 0 main; stroke 0 -.75 0 .45 .03 second;
    stroke -.6 -.15 .6 -.15 .03 second
"""

ANIMALS = """
goldfish = orange: wedge2 -.45 0 .4 .4 main; ellipse .1 0 .55 .36 main; ellipse .42 -.08 .07 .07 black;
    wedge 0 -.6 .22 -.25 dark
striped fish = yellow sky white: wedge2 -.45 0 .4 .45 main; ellipse .1 0 .55 .45 main; stripes 12 1.57 black;
    ellipse .45 -.08 .07 .07 black
shark = slate grey: wedge2 -.6 0 .3 .5 main; ellipse 0 0 .75 .26 main; ellipse .05 .14 .6 .1 white;
    wedge .05 -.65 .2 -.15 main; ellipse .5 -.05 .04 .04 black
whale = navy slate blue: wedge2 -.7 -.15 .3 .35 main; ellipse .1 .1 .7 .45 main; ellipse .2 .32 .5 .17 white;
    ellipse .5 0 .05 .05 black
red butterfly = red orange: ellipse -.42 -.28 .42 .36 main .5; ellipse .42 -.28 .42 .36 main -.5;
    ellipse -.34 .38 .3 .26 second; ellipse .34 .38 .3 .26 second; dots4 .4 .09 black; stroke 0 -.5 0 .5 .07 black
blue butterfly = blue sky violet: ellipse -.45 -.2 .4 .5 main; ellipse .45 -.2 .4 .5 main;
    ellipse -.3 .45 .22 .3 dark; ellipse .3 .45 .22 .3 dark; stroke 0 -.5 0 .6 .06 black
snail = tan: stroke -.7 .5 .7 .5 .13 cream; stroke .7 .45 .75 .05 .07 cream; ellipse -.1 .1 .48 .48 main;
    ring -.1 .1 .26 .06 brown; ellipse -.1 .1 .1 .1 brown
spider = black brown: stroke -.8 -.6 .8 .6 .035 main; stroke .8 -.6 -.8 .6 .035 main;
    stroke -.95 -.1 .95 -.1 .035 main; stroke -.55 .85 .55 -.85 .035 main; ellipse 0 .15 .35 .4 main;
    ellipse 0 -.3 .2 .18 main
crab = red orange: stroke -.5 .2 -.9 .55 .06 main; stroke .5 .2 .9 .55 .06 main; stroke -.5 -.1 -.8 -.45 .08 main;
    stroke .5 -.1 .8 -.45 .08 main; ellipse -.82 -.55 .2 .17 main; ellipse .82 -.55 .2 .17 main;
    ellipse 0 .1 .6 .4 main; ellipse -.2 -.3 .09 .09 black; ellipse .2 -.3 .09 .09 black
turtle = green teal: ellipse .75 .1 .2 .16 lime; stroke -.5 .3 -.55 .65 .11 lime; stroke .4 .3 .45 .65 .11 lime;
    dome 0 .4 .7 .8 main; dots 5 .4 .13 dark
snake = green lime: stroke -.8 .6 -.3 .2 .12 main; stroke -.3 .2 .1 .5 .12 main; stroke .1 .5 .5 .1 .12 main;
    stroke .5 .1 .45 -.5 .12 main; ellipse .5 -.6 .22 .16 main; ellipse .55 -.65 .05 .05 black
elephant = grey slate: box -.45 .5 .13 .35 dark; box .2 .5 .13 .35 dark; ellipse -.15 0 .62 .42 main;
    ellipse .5 -.15 .32 .34 main; stroke .75 0 .8 .6 .09 main; ellipse .35 -.12 .17 .25 dark;
    ellipse .6 -.22 .04 .04 black
giraffe = gold: box -.4 .55 .06 .4 main; box .1 .55 .06 .4 main; ellipse -.15 .1 .42 .24 main;
    stroke .15 .05 .45 -.65 .11 main; stroke .45 -.7 .75 -.6 .1 main; dots 6 .4 .08 brown
cow = white: box -.5 .5 .07 .3 dark; box .25 .5 .07 .3 dark; ellipse -.1 .05 .6 .33 main; dots 4 .4 .16 black;
    ellipse .62 -.25 .24 .2 main; ellipse .75 -.15 .14 .1 pink
pig = pink: box -.4 .5 .08 .25 dark; box .25 .5 .08 .25 dark; ellipse -.05 .1 .6 .4 main; ellipse .55 -.05 .3 .3 main;
    ellipse .72 0 .13 .1 dark; ellipse .55 -.15 .04 .04 black
sheep = white cream: box -.35 .5 .06 .3 black; box .25 .5 .06 .3 black; star 9 -.05 0 .6 .08 main;
    ellipse .6 -.1 .22 .2 black
zebra = white: box -.4 .5 .07 .35 main; box .25 .5 .07 .35 main; ellipse -.1 .05 .52 .28 main; stripes 16 1.57 black;
    stroke .35 -.05 .6 -.5 .13 main; stripes 16 0 black; stroke .6 -.5 .82 -.4 .1 main
mouse = grey brown: stroke -.55 .3 -.95 0 .03 pink; ellipse -.05 .25 .55 .33 main; wedge2 .55 .25 -.35 .2 main;
    ellipse .25 -.12 .2 .2 main; ellipse .25 -.12 .12 .12 pink; ellipse .55 .15 .05 .05 black
rabbit = white grey tan: stroke -.15 -.5 -.25 -.9 .1 main; stroke .1 -.5 .2 -.9 .1 main; ellipse 0 .45 .45 .42 main;
    ellipse 0 -.25 .34 .32 main; ellipse -.13 -.3 .05 .06 black; ellipse .13 -.3 .05 .06 black;
    ellipse 0 -.15 .06 .05 pink
hedgehog = brown: star 17 -.1 .15 .65 .1 main; ellipse .5 .3 .28 .2 tan; ellipse .75 .3 .06 .06 black;
    ellipse .5 .2 .04 .05 black
owl = brown tan: ellipse 0 .2 .5 .62 main; ellipse 0 .35 .3 .4 light; ellipse -.22 -.25 .23 .23 white;
    ellipse .22 -.25 .23 .23 white; ellipse -.22 -.25 .1 .1 black; ellipse .22 -.25 .1 .1 black;
    wedge 0 .12 .09 -.12 orange
penguin = black slate: ellipse 0 .1 .5 .75 main; ellipse 0 .25 .34 .55 white; ellipse 0 -.55 .3 .28 main;
    wedge2 .35 -.5 -.22 .1 orange; ellipse .1 -.6 .05 .05 white
duck = yellow white: ellipse -.1 .3 .6 .36 main; ellipse .4 -.25 .28 .27 main; stroke .6 -.2 .85 -.15 .08 orange;
    ellipse .45 -.32 .05 .05 black; ellipse -.2 .25 .3 .17 dark
parrot = red green blue: stroke -.2 .3 -.45 .9 .1 second; ellipse 0 0 .36 .52 main .35;
    ellipse -.15 .1 .2 .4 second .35; ellipse .2 -.5 .26 .25 main; ellipse .42 -.45 .13 .15 cream;
    ellipse .22 -.55 .05 .05 black
robin = brown: stroke -.3 .2 -.85 .35 .09 dark; ellipse 0 .1 .48 .38 main; ellipse .22 .15 .28 .28 red;
    ellipse .38 -.32 .24 .22 main; stroke .58 -.3 .75 -.27 .04 black; ellipse .42 -.36 .05 .05 black
canary = yellow: stroke -.35 .1 -.9 .2 .07 dark; ellipse 0 0 .46 .3 main -.25; ellipse .38 -.36 .21 .2 main;
    ellipse -.12 .0 .32 .15 dark; stroke .55 -.35 .7 -.33 .05 orange; ellipse .43 -.38 .04 .04 black
crow = black: stroke -.35 .05 -.95 .2 .1 main; ellipse 0 0 .5 .28 main -.25; ellipse .38 -.38 .22 .2 main;
    stroke .52 -.38 .9 -.33 .06 slate; ellipse .44 -.4 .04 .04 white
kingfisher = blue teal: stroke -.3 .1 -.65 .2 .09 main; ellipse 0 0 .44 .32 main -.25; ellipse .12 .12 .3 .2 orange -.2;
    ellipse .36 -.36 .24 .21 main; stroke .5 -.36 .98 -.3 .05 black; ellipse .42 -.4 .04 .04 white
dove = white silver: stroke -.35 .05 -.85 .25 .12 main; ellipse 0 0 .48 .34 main -.25; ellipse -.1 -.05 .36 .18 dark;
    ellipse .38 -.36 .2 .19 main; stroke .54 -.36 .66 -.33 .04 grey; ellipse .43 -.38 .04 .04 black
songbird = brown blue yellow red grey: stroke -.3 .2 -.85 .3 .09 dark; ellipse 0 .1 .48 .38 main;
    ellipse .16 .2 .3 .24 second; ellipse .38 -.32 .24 .22 main; stroke .58 -.3 .75 -.27 .04 black;
    ellipse .42 -.36 .05 .05 black
"""

EMBLEMS = """
first-aid badge = red green: ellipse 0 0 .8 .8 main; box 0 0 .17 .5 white; box 0 0 .5 .17 white
blue badge = blue navy: ellipse 0 0 .8 .8 main; star 5 0 0 .5 .28 white
shield = red blue green: box 0 -.3 .6 .45 main; bowl 0 .1 .6 .8 main; stroke -.5 -.6 .5 .6 .14 gold
gold star = gold yellow: star 5 0 0 .85 .3 main; star 5 0 0 .5 .3 light
heart = red pink: ellipse -.3 -.2 .36 .36 main; ellipse .3 -.2 .36 .36 main; funnel 0 .8 .64 1.0 main
striped flag = red blue green: box -.75 0 .05 .95 brown; box .1 -.3 .8 .45 main; stripes 9 0 white
crossed flag = red blue: box -.75 0 .05 .95 brown; box .1 -.3 .8 .45 white; box .1 -.3 .8 .12 main;
    box -.1 -.3 .12 .45 main
wooden arrow = tan brown: box -.2 0 .55 .2 main; wedge2 .85 0 -.5 .42 main; stroke -.5 0 .3 0 .04 dark
life ring = red orange: ring 0 0 .55 .2 white; sectors 4 0 main
traffic cone = orange: wedge 0 -.9 .45 .7 main; stripes 6 0 white; box 0 .78 .7 .09 dark
letter block a = yellow red sky: box 0 0 .7 .7 main; box 0 0 .56 .56 cream; stroke -.3 .4 0 -.4 .08 blue;
    stroke .3 .4 0 -.4 .08 blue; box 0 .12 .2 .06 blue
letter block h = green pink orange: box 0 0 .7 .7 main; box 0 0 .56 .56 cream; box -.25 0 .08 .4 red;
    box .25 0 .08 .4 red; box 0 0 .2 .08 red
number plate = white yellow: box 0 0 .9 .35 black; box 0 0 .85 .3 main; box -.5 0 .12 .18 slate;
    box -.1 0 .12 .18 slate; box .35 0 .2 .18 slate
pencil = yellow red blue: box -.1 0 .6 .12 main; wedge2 .85 0 -.35 .12 cream; box -.72 0 .08 .12 pink;
    ellipse .8 0 .06 .04 black
stop light = black: box 0 0 .32 .8 main; ellipse 0 -.5 .2 .2 red; ellipse 0 0 .2 .2 yellow; ellipse 0 .5 .2 .2 green
"""

SURFACES = """
bricks = red maroon tan: box 0 0 3 3 main; weave 14 0 cream
polka dots = red navy teal: box 0 0 3 3 main; spots 9 0 white
pinstripes = navy white pink: box 0 0 3 3 main; stripes 13 1.2 second
chequered cloth = white: box 0 0 3 3 main; checks 10 0 red
planks = brown tan: box 0 0 3 3 main; stripes 11 0 dark; weave 4.5 0 light
waves = teal blue: box 0 0 3 3 main; ripples 11 0 light
target rings = white: box 0 0 3 3 main; circles 13 0 red
leopard = gold: box 0 0 3 3 main; spots 12 .6 brown
hills = sky: box 0 0 3 3 main; ellipse -.6 1.0 .9 .7 green; ellipse .6 1.1 .9 .75 lime
mountains = sky: box 0 0 3 3 main; wedge -.4 -.4 .8 .7 slate; wedge -.4 -.4 .3 0 white; wedge .55 -.1 .6 .7 grey;
    box 0 .85 3 .2 green
sunset = orange pink: box 0 0 3 3 main; ellipse .2 .2 .35 .35 yellow; box 0 .7 3 .5 navy; stripes 16 0 orange
skyline = navy violet: box 0 0 3 3 main; box -.7 .4 .2 .7 black; box -.25 .2 .2 .9 slate; box .2 .5 .2 .7 black;
    box .65 .1 .2 .9 slate
beach = sky: box 0 0 3 3 main; box 0 .2 3 .2 blue; box 0 .75 3 .4 tan; ellipse .6 -.6 .2 .2 yellow
forest = lime: box 0 0 3 3 sky; box 0 .95 3 .25 brown; wedge -.6 -.5 .4 .8 green; wedge 0 -.8 .45 .8 teal;
    wedge .6 -.5 .4 .8 green
"""

OTHER_THINGS = """
teacup = white pink sky: ring .5 0 .17 .06 main; bowl 0 -.3 .5 .75 main; ellipse 0 -.3 .5 .1 dark;
    box 0 .5 .65 .06 main
beer mug = gold: ring .5 .05 .26 .08 silver; box 0 .1 .42 .55 main; star 7 0 -.45 .45 .08 white
jug = sky white: ring .45 0 .3 .07 main; trapezoid 0 .15 .32 .5 .6 main; wedge2 -.62 -.38 .3 .14 main
vase = blue teal violet: ellipse 0 .25 .45 .5 main; trapezoid 0 -.4 .3 .16 .3 main; stripes 8 0 light
bucket = grey red blue: ring 0 -.35 .5 .04 black; trapezoid 0 .2 .6 .42 .5 main; box 0 -.3 .6 .05 dark
spade = slate: stroke 0 -.85 0 .2 .06 brown; box 0 -.88 .2 .06 brown; bowl 0 .1 .32 .8 main; box 0 .2 .32 .15 main
fork = silver: stroke 0 -.1 0 .9 .07 main; box -.2 -.5 .04 .35 main; box 0 -.5 .04 .35 main; box .2 -.5 .04 .35 main;
    box 0 -.2 .25 .07 main
spoon = silver: stroke 0 -.1 0 .9 .06 main; ellipse 0 -.5 .26 .36 main; ellipse 0 -.5 .16 .24 dark
knife = silver: box 0 .55 .09 .35 black; ellipse 0 -.3 .14 .6 main
frying pan = black slate: stroke .3 -.3 .9 -.85 .09 brown; ellipse -.15 .2 .58 .58 main; ellipse -.15 .2 .46 .46 grey
torch = red yellow: box -.2 0 .5 .17 main; trapezoid2 .45 0 .17 .32 .18 slate; box .66 0 .05 .32 cream
light bulb = yellow cream: ellipse 0 -.2 .5 .5 main; box 0 .4 .2 .22 grey; stripes 16 0 dark;
    ellipse -.15 -.3 .1 .14 white
camera = black slate: box 0 .1 .8 .48 main; box -.1 -.42 .25 .1 main; ellipse 0 .1 .36 .36 silver;
    ellipse 0 .1 .24 .24 navy; ellipse .6 -.2 .07 .07 red
microscope = slate: box 0 .8 .5 .09 main; ring .05 .2 .48 .09 main; stroke -.35 -.7 .05 .1 .14 silver;
    box -.1 .5 .35 .05 black
anchor = slate navy: ring 0 -.65 .18 .07 main; box 0 .1 .07 .65 main; box 0 -.3 .35 .06 main; bowlring 0 .2 .6 .1 main
trumpet = gold: stroke -.8 0 .5 0 .06 main; wedge2 .35 0 .5 .4 main; ring -.1 .1 .25 .06 main
violin = brown maroon: stroke .1 -.2 .4 -.9 .05 black; ellipse -.2 .45 .36 .32 main; ellipse .0 .05 .26 .24 main;
    stroke -.3 .7 .1 -.1 .03 cream
sofa = blue red grey: box 0 -.15 .7 .35 dark; box 0 .25 .9 .22 main; box -.85 .1 .13 .38 main; box .85 .1 .13 .38 main
stool = red tan: box 0 -.3 .5 .1 main; stroke -.3 -.2 -.45 .85 .05 brown; stroke .3 -.2 .45 .85 .05 brown;
    box 0 .35 .35 .04 brown
cap = red blue green: dome 0 .2 .55 .75 main; stroke .3 .2 .9 .3 .1 dark; ellipse 0 -.52 .07 .07 light
sun hat = tan cream: ellipse 0 .3 .9 .22 main; dome 0 .3 .5 .75 main; box 0 .2 .5 .09 red
dress = pink red blue: box 0 -.5 .25 .3 main; wedge 0 -.75 .65 .85 main; box 0 -.1 .26 .06 dark
high heel = red black: stroke -.6 -.3 .5 .45 .14 main; stroke -.65 -.2 -.65 .6 .06 main; stroke .4 .5 .75 .5 .12 main
glove = brown red black: box 0 .2 .36 .4 main; stroke -.25 -.1 -.27 -.6 .1 main; stroke 0 -.1 0 -.75 .1 main;
    stroke .25 -.1 .27 -.6 .1 main; stroke .4 .3 .7 0 .1 main; box 0 .7 .38 .12 dark
espresso cup = white red blue: ring .42 .05 .17 .06 main; box 0 .05 .36 .38 main; ellipse 0 -.33 .36 .09 brown;
    box 0 .5 .65 .06 main
coffee pot = sky pink white: ring -.45 .05 .27 .06 main; stroke .3 .15 .8 -.4 .08 main;
    trapezoid 0 .12 .26 .44 .5 main; ellipse 0 -.42 .24 .08 dark; ellipse 0 -.53 .08 .08 dark
watering can = green red silver: ring -.5 0 .28 .06 main; stroke .35 .35 .8 -.3 .07 main; box 0 .2 .42 .42 main;
    ellipse .82 -.36 .17 .12 dark
flask = green red silver: box 0 .2 .3 .65 main; box 0 -.62 .22 .2 slate; box 0 .2 .3 .08 light
perfume = pink sky violet: box 0 .3 .45 .45 main; box 0 -.25 .12 .12 silver; ellipse 0 -.5 .2 .17 gold
goblet = gold silver: bowl 0 -.6 .45 .85 main; box 0 .4 .05 .3 main; ellipse 0 .75 .38 .1 main
mallet = brown tan: stroke 0 -.4 0 .85 .08 main; box 0 -.5 .45 .27 light
axe = brown: stroke 0 -.8 0 .85 .08 main; trapezoid2 -.28 -.5 .36 .18 .3 slate
spanner = silver: stroke 0 -.35 0 .85 .1 main; ring 0 -.6 .22 .11 main
banjo = cream tan: stroke .1 -.1 .5 -.9 .06 brown; ellipse -.15 .35 .45 .45 brown; ellipse -.15 .35 .36 .36 main
cello = brown maroon orange: stroke 0 -.2 .08 -.95 .05 black; stroke 0 .7 0 .98 .03 black;
    ellipse 0 .45 .42 .34 main; ellipse 0 -.02 .32 .28 main; stroke 0 .75 .02 -.1 .03 cream
bowler hat = black slate brown: dome 0 .35 .5 .8 main; box 0 .2 .5 .08 dark; ellipse 0 .38 .8 .12 main
shoe = brown black red: stroke -.45 .2 -.3 .2 .3 main; stroke -.4 .35 .5 .42 .18 main; box .05 .62 .68 .07 black
tunic = sky white red: wedge 0 -1.0 .62 .8 main; stroke -.3 -.3 -.7 .15 .15 main; stroke .3 -.3 .7 .15 .15 main;
    wedge 0 -.1 .14 -.42 cream
radio = slate brown red: stroke .4 -.5 .7 -.95 .03 grey; box 0 .1 .82 .5 main; ellipse -.38 .1 .32 .32 black;
    box .38 -.05 .3 .12 cream; ellipse .4 .35 .1 .1 silver
oven = white silver slate: box 0 .1 .72 .65 main; box 0 .22 .55 .38 black; dots3 .3 .05 dark; box 0 -.35 .6 .04 dark
peach = orange pink: stroke 0 -.5 .1 -.75 .05 brown; ellipse .25 -.62 .2 .09 green; ellipse 0 .08 .6 .56 main;
    stroke 0 -.4 .1 .5 .03 dark
tomato = red: ellipse 0 .08 .64 .54 main; star 5 0 -.4 .3 .3 green; ellipse -.25 -.1 .12 .1 light
teddy bear = brown tan: ellipse -.32 -.6 .17 .17 main; ellipse .32 -.6 .17 .17 main; ellipse 0 .4 .45 .45 main;
    ellipse 0 -.3 .4 .36 main; ellipse 0 -.2 .18 .14 cream; ellipse -.15 -.38 .05 .05 black;
    ellipse .15 -.38 .05 .05 black; ellipse 0 .45 .25 .27 cream
robot = silver teal: stroke 0 -.6 0 -.9 .03 slate; box 0 -.4 .34 .27 main; box 0 .3 .48 .4 main;
    ellipse -.14 -.42 .09 .09 red; ellipse .14 -.42 .09 .09 red; box -.65 .3 .09 .35 dark; box .65 .3 .09 .35 dark
snowman = white: ellipse 0 .5 .5 .45 main; ellipse 0 -.1 .36 .34 main; ellipse 0 -.55 .26 .26 main;
    box 0 -.8 .26 .1 black; wedge2 .3 -.52 -.28 .06 orange; dots3 .1 .04 black
pineapple = gold: ellipse 0 .3 .42 .55 main; weave 13 .785 brown; wedge -.2 -.9 .16 -.2 green;
    wedge .2 -.9 .16 -.2 green; wedge 0 -.98 .16 -.2 green
grapes = violet green: stroke 0 -.5 0 -.85 .05 brown; ellipse -.3 -.3 .22 .22 main; ellipse .05 -.35 .22 .22 main;
    ellipse .35 -.25 .22 .22 main; ellipse -.15 .05 .22 .22 main; ellipse .2 .08 .22 .22 main;
    ellipse 0 .42 .22 .22 main
lemon = yellow: ellipse 0 0 .6 .44 main; ellipse .58 0 .14 .1 main; ellipse -.58 0 .14 .1 main;
    ellipse -.2 -.15 .14 .08 light
"""

COMMON = read_figures(DISCS, PLANTS_AND_FOOD, PLACES_AND_VEHICLES, HOUSEHOLD, ANIMALS, EMBLEMS, SURFACES)
"""The figures of the atlas, by name."""

OTHERS = read_figures(OTHER_THINGS)
"""Figures that the atlas lacks."""
