//! `tgm viz`: pictures of what guides the masks, and a page that a real browser opens.

mod common;

use std::fs;
use std::path::Path;

use common::{browser, fails, fixtures, ok, open_in, text, tiny, world};

/// The names of the PNG files of the first clip.
fn panels(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().unwrap().strip_suffix(".png").map(str::to_owned)
        })
        .filter_map(|name| name.strip_prefix("clip-00-").map(str::to_owned))
        .collect();
    names.sort();
    names
}

const SMALL: [&str; 8] = ["--frames", "8", "--stride", "2", "--size", "64", "--patch", "8"];

#[test]
fn every_strategy_that_has_its_cue_is_drawn_and_the_page_needs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("viz");
    let world = world();
    let start = ["viz", "--data", &world, "--count", "2", "--model", "builtin", "--out", text(&out)];
    let page = ok(&[&start[..], &SMALL].concat());
    assert_eq!(
        panels(&out),
        [
            "frames",
            "mask-motion-box",
            "mask-motion-warp",
            "mask-random",
            "mask-text",
            "mask-tube",
            "motion",
            "score-plain",
            "score-surgery",
            "score-value"
        ]
    );
    let html = fs::read_to_string(page.trim()).unwrap();
    assert_eq!(html.matches("<img").count(), 20);
    assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 20);
    for outside in ["http:", "https:", "<script", "<link", "url(", "@import"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn files_without_caption_show_motion_and_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let (out, video) = (dir.path().join("viz"), fixtures().join("world/videos/test-00001.mp4"));
    ok(&[&["viz", text(&video), "--out", text(&out)][..], &SMALL].concat());
    let names = panels(&out);
    assert!(
        names.contains(&"mask-motion-box".into()) && !names.iter().any(|n| n.contains("text")),
        "{names:?}"
    );

    let captions = ["--caption", "one", "--caption", "two", "--caption", "three"];
    let error =
        fails(2, &[&["viz", text(&video), text(&video), "--out", text(&out)][..], &captions].concat());
    assert!(error.contains("3 captions for 2 videos"), "{error}");
    let absent = dir.path().join("absent.mp4");
    let error = fails(1, &["viz", text(&absent), "--out", text(&out)]);
    assert!(error.contains("absent.mp4"), "{error}");
    let error =
        fails(1, &[&["viz", text(&video), "--out", text(&out), "--ratio", "1.5"][..], &SMALL].concat());
    assert!(error.contains("1.5"), "{error}");
}

#[test]
fn reconstructions_say_where_their_statistics_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let (run, out) = (dir.path().join("run"), dir.path().join("viz"));
    let world = world();
    let normalised = ["--set", "model.normalize_target=true", "--set", "masking.ratio=0.75"];
    ok(&tiny(&world, &run, &[&normalised[..], &["--steps", "1"]].concat()));
    let viz = ["viz", "--data", &world, "--count", "1", "--checkpoint", text(&run), "--out", text(&out)];
    let page = ok(&viz);
    let html = fs::read_to_string(page.trim()).unwrap();
    assert_eq!(html.matches("from visible neighbours").count(), 5, "one for each strategy");
    assert!(!html.contains("ORACLE"));
    assert!(html.contains("the run's; 75 % hidden"), "its masking is drawn as it trained with it");
    assert!(panels(&out).contains(&"reconstruction-text".into()), "the run's own CLIP is used");
    let html = fs::read_to_string(ok(&[&viz[..], &["--oracle"]].concat()).trim()).unwrap();
    assert_eq!(html.matches("ORACLE STATISTICS").count(), 5);
    let (honest, oracle) = (out.join("clip-00-reconstruction-text.png"), out.join("clip-00-oracle-text.png"));
    assert_ne!(fs::read(honest).unwrap(), fs::read(oracle).unwrap());
}

#[test]
fn a_real_browser_opens_the_page_with_all_pictures_and_without_sideways_scrolling() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("viz");
    let world = world();
    let start = ["viz", "--data", &world, "--count", "3", "--model", "builtin", "--out", text(&out)];
    let page = ok(&[&start[..], &SMALL].concat());
    // The page has no script; this copy measures itself.
    let measure = "<script>addEventListener('load', () => {\
        const all = [...document.images];\
        const seen = all.filter(i => i.complete && i.naturalWidth > 0).length;\
        const wide = document.documentElement.scrollWidth > innerWidth;\
        document.title = `measured ${seen} of ${all.length}, too wide: ${wide}`;\
    });</script></body>";
    let html = fs::read_to_string(page.trim()).unwrap().replace("</body>", measure);
    let copy = dir.path().join("measured.html");
    fs::write(&copy, html).unwrap();
    for window in ["390,844", "1400,900"] {
        let (dom, console) = open_in(browser, &copy, window);
        assert!(console.is_empty(), "{window}: {console}");
        let title =
            dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap_or("none");
        assert_eq!(title, "measured 30 of 30, too wide: false", "{window}");
    }
}
