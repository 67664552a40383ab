//! Pictures are well-formed and show every rank as long as that can be read.

use sapwood::plan::{Collective, builders, draw};

#[path = "plan_support/collectives.rs"]
mod collectives;

fn picture(name: &str, collective: Collective, ranks: u32) -> String {
    let picture = draw::svg(&builders::build(name, collective, ranks).unwrap());
    if let Some(folder) = std::env::var_os("SAPWOOD_TEST_PICTURES") {
        let name = format!("{}-{collective}-{ranks}.svg", name.replace(':', "-"));
        std::fs::write(std::path::Path::new(&folder).join(name), &picture).unwrap();
    }
    picture
}

#[test]
fn every_rank_is_drawn_or_said_to_be_left_out() {
    let names = builders::ALL.iter().map(|builder| builder.name);
    for name in names.chain(["ring:2", "ring:7", "k-nomial:2", "k-nomial:9"]) {
        for ranks in [1, 2, 3, 4, 7, 8, 16, 32, 64, 65, 200, 4096] {
            for collective in collectives::all(ranks / 2) {
                if !(builders::find(name).unwrap().builder().supports)(collective) {
                    continue;
                }
                let picture = picture(name, collective, ranks);
                assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
                assert!(!picture.contains("NaN") && !picture.contains("inf\""), "{}", name);
                let all = (0..ranks).all(|rank| picture.contains(&format!(">{rank}</text>")));
                let says_so = picture.contains(&format!("of the {ranks} ranks"));
                assert_eq!(
                    says_so,
                    ranks > draw::LEGIBLE_RANKS,
                    "{} {collective} {ranks}",
                    name
                );
                assert!(all || says_so, "{} {collective} {ranks}: a rank is missing", name);
                assert!(picture.len() < 1 << 20, "{} bytes", picture.len());
            }
        }
    }
}
