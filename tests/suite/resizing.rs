//! Resizing and cropping against torchvision on Pillow's images, byte for byte.

use archrepair::data::resize::{Filter, Planes};
use serde::Deserialize;

use crate::support::Golden;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    picture: String,
    filter: String,
    resize: usize,
    crop: [usize; 2],
}

#[test]
fn pictures_are_resized_and_cut_as_by_torchvision() {
    let golden = Golden::open("resize.safetensors");
    let cases: Vec<Case> = serde_json::from_str(&golden.file.metadata()["cases"]).unwrap();
    assert_eq!(cases.len(), 12);
    for Case { picture, filter, resize, crop } in cases {
        let from = format!("{picture}/from");
        let size = golden.file.shape(&from).unwrap()[1..].try_into().unwrap();
        let planes = Planes { pixels: golden.file.raw(&from).unwrap().to_vec(), size };
        let made = planes.shorter_side(resize, filter.parse::<Filter>().unwrap()).center(crop);
        let want = golden.file.raw(&format!("{picture}/{filter}")).unwrap();
        assert!(made.size == crop && made.pixels == want, "{picture} {filter}");
    }
}
