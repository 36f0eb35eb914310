//! Denmark's 98 municipalities, with sizes like theirs, and how citizens and staff are spread.
//!
//! Copenhagen has the CVR number of the spec's example; the other numbers are invented, and do not
//! belong to the municipality whose name stands beside them.

use std::sync::LazyLock;

use sporlog_record::identifier::cvr;

use crate::chance::{Weighted, hash, scale};
use crate::text;

/// Names, and inhabitants in hundreds.
static MUNICIPALITIES: LazyLock<Vec<(&str, u64)>> = LazyLock::new(|| {
    let entry = |entry: &'static str| {
        let (name, hundreds) = entry.rsplit_once(' ')?;
        Some((name, hundreds.parse().ok()?))
    };
    TABLE.split(", ").filter_map(entry).collect()
});

const TABLE: &str = "\
     København 6600, Frederiksberg 1050, Ballerup 530, Brøndby 400, Dragør 145, Gentofte 750, Gladsaxe 700, \
     Glostrup 240, Herlev 300, Albertslund 280, Hvidovre 540, Høje-Taastrup 570, Lyngby-Taarbæk 580, \
     Rødovre 440, Ishøj 240, Tårnby 430, Vallensbæk 180, Furesø 420, Allerød 260, Fredensborg 420, \
     Helsingør 640, Hillerød 540, Hørsholm 250, Rudersdal 580, Egedal 450, Frederikssund 460, Halsnæs 310, \
     Gribskov 410, Bornholm 390, Greve 520, Køge 630, Lejre 290, Roskilde 920, Solrød 250, Odsherred 330, \
     Holbæk 740, Faxe 370, Kalundborg 480, Ringsted 360, Slagelse 800, Stevns 240, Sorø 300, Næstved 840, \
     Vordingborg 450, Guldborgsund 590, Lolland 400, Middelfart 400, Assens 410, Faaborg-Midtfyn 520, \
     Kerteminde 240, Nyborg 320, Odense 2090, Svendborg 600, Nordfyn 300, Langeland 120, Ærø 60, \
     Haderslev 550, Billund 270, Sønderborg 740, Tønder 360, Esbjerg 1160, Fanø 34, Varde 490, Vejen 430, \
     Aabenraa 590, Fredericia 520, Kolding 950, Vejle 1210, Horsens 970, Herning 900, Holstebro 590, \
     Lemvig 190, Struer 200, Syddjurs 450, Norddjurs 370, Favrskov 500, Odder 240, Randers 990, \
     Silkeborg 990, Samsø 36, Skanderborg 650, Aarhus 3670, Ikast-Brande 430, Ringkøbing-Skjern 560, \
     Hedensted 480, Skive 440, Viborg 970, Morsø 200, Thisted 430, Vesthimmerland 360, Rebild 310, \
     Brønderslev 370, Frederikshavn 580, Læsø 18, Mariagerfjord 420, Jammerbugt 390, Aalborg 2230, \
     Hjørring 630";

/// The municipalities, with so many citizens and case workers each as a sample of a certain size
/// needs. A citizen is a number that no two municipalities share.
pub(crate) struct Municipalities {
    cvr: Vec<[u8; 8]>,
    by_size: Weighted,
    citizens: Vec<u64>,
    workers: Vec<u64>,
}

impl Municipalities {
    /// About `citizens` and `workers` in all: every municipality has a few.
    pub(crate) fn new(citizens: u64, workers: u64) -> Self {
        let inhabitants: u64 = MUNICIPALITIES.iter().map(|(_, hundreds)| hundreds).sum();
        let share = |of: u64, least: u64| {
            MUNICIPALITIES.iter().map(move |(_, hundreds)| (of * hundreds / inhabitants).max(least)).collect()
        };
        Municipalities {
            cvr: cvr_numbers(),
            by_size: Weighted::new(MUNICIPALITIES.iter().map(|(_, hundreds)| *hundreds)),
            citizens: share(citizens, 3),
            workers: share(workers, 1),
        }
    }

    /// A municipality by 64 random bits: the large ones more often.
    pub(crate) fn draw(&self, bits: u64) -> usize {
        self.by_size.at(bits)
    }

    /// The municipality's name.
    pub(crate) fn name(municipality: usize) -> &'static str {
        MUNICIPALITIES[municipality].0
    }

    /// The municipality's CVR number.
    pub(crate) fn cvr(&self, municipality: usize) -> [u8; 8] {
        self.cvr[municipality]
    }

    /// How many citizens the municipality has.
    pub(crate) fn citizens(&self, municipality: usize) -> u64 {
        self.citizens[municipality]
    }

    /// How many case workers the municipality has.
    pub(crate) fn workers(&self, municipality: usize) -> u64 {
        self.workers[municipality]
    }

    /// The number of its `nth` citizen, whatever the sample's size.
    pub(crate) fn citizen(municipality: usize, nth: u64) -> u64 {
        nth * MUNICIPALITIES.len() as u64 + municipality as u64
    }
}

fn cvr_numbers() -> Vec<[u8; 8]> {
    let mut numbers = vec![*b"64942212"];
    for attempt in 0.. {
        if numbers.len() == MUNICIPALITIES.len() {
            break;
        }
        let stem: [u8; 7] = text::digits(1_000_000 + scale(hash(attempt, 0x6376_7200), 9_000_000));
        let Some(check) = cvr::check_digit(&stem) else { continue };
        let mut number = [check; 8];
        number[..7].copy_from_slice(&stem);
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}
