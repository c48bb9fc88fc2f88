//! The page that `tgm report` writes, as a real browser sees it; and what an event file holds.
#![allow(clippy::print_stdout, reason = "says what it skipped, and what it counted")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{browser, fails, ok, open_in, text, tgm, tiny, world};

/// Two short runs that differ in a key.
fn two_runs(dir: &Path) -> [std::path::PathBuf; 2] {
    ["tube", "text"].map(|masking| {
        let out = dir.join(masking);
        let options = ["--masking", masking, "--steps", "6", "--set", "output.log_every=1"];
        let watched = ["--set", "output.probe_every=3", "--set", "output.pictures_every=2"];
        ok(&tiny(&world(), &out, &[&options[..], &watched].concat()));
        out
    })
}

/// What a visitor does, and what comes of it, written into the page for the test to read.
const VISIT: &str = "
<script>
addEventListener('load', () => {
  const seen = document.createElement('pre');
  const note = (name, value) => { seen.textContent += `${name}=${value}\\n`; };
  note('curves', document.querySelectorAll('path.curve').length);
  note('images', [...document.images].filter((i) => i.complete && i.naturalWidth > 0).length);
  note('broken', [...document.images].filter((i) => !(i.complete && i.naturalWidth > 0)).length);
  note('wide', document.documentElement.scrollWidth > innerWidth);
  const plot = document.querySelector('.plot');
  const box = plot.getBoundingClientRect();
  const pointer = (kind, share) => plot.dispatchEvent(new PointerEvent(kind, { bubbles: true, button: 0, pointerId: 1,
    clientX: box.left + 52 + share * (box.width - 62), clientY: box.top + 90 }));
  plot.setPointerCapture = () => {};
  pointer('pointermove', 0.5);
  note('tip', document.querySelector('.tip').innerText.replaceAll('\\n', ' '));
  const ticks = () => [...plot.querySelectorAll('text')].map((t) => t.textContent).join(' ');
  const before = ticks();
  pointer('pointerdown', 0.2); pointer('pointermove', 0.6); pointer('pointerup', 0.6);
  note('zoomed', document.body.dataset.zoom === 'in' && ticks() !== before);
  plot.dispatchEvent(new MouseEvent('dblclick', { bubbles: true }));
  note('back', document.body.dataset.zoom === 'out' && ticks() === before);
  const slider = document.querySelector('.gallery input');
  const [picture, label] = [() => document.querySelector('.gallery img').src, () => document.querySelector('.gallery .bar').textContent];
  const [old, said] = [picture(), label()];
  slider.value = 0; slider.dispatchEvent(new Event('input'));
  note('time', picture() !== old && label() !== said);
  document.querySelector('.legend button').click();
  note('fewer', document.querySelectorAll('path.curve').length);
  const back = () => getComputedStyle(document.body).backgroundColor;
  const light = back();
  document.getElementById('theme').click();
  note('theme', back() !== light);
  for (const axis of ['epoch', 'hours', 'step']) { const s = document.getElementById('x-axis'); s.value = axis; s.dispatchEvent(new Event('change')); }
  note('errors', document.body.dataset.errors || 0);
  seen.id = 'seen';
  document.body.append(seen);
});
</script></body>";

#[test]
fn a_browser_finds_curves_pictures_and_no_error_in_the_report_of_two_runs() {
    let dir = tempfile::tempdir().unwrap();
    let [tube, masked_by_text] = two_runs(dir.path());
    let page = dir.path().join("page.html");
    ok(&["report", text(&tube), text(&masked_by_text), "--out", text(&page)]);
    let html = fs::read_to_string(&page).unwrap();
    for outside in ["http://", "https://", "src=\"/", "@import"] {
        // The name space of SVG is a name, not an address.
        let found = html.replace("http://www.w3.org/2000/svg", "").contains(outside);
        assert!(!found, "the page must not need the network: {outside}");
    }
    let Some(browser) = browser() else { return };
    fs::write(&page, html.replace("</body>", VISIT)).unwrap();
    for window in ["1400,1000", "390,844"] {
        let (dom, console) = open_in(browser, &page, window);
        assert!(console.is_empty(), "{window}: {console}");
        let start = dom
            .find("id=\"seen\">")
            .unwrap_or_else(|| panic!("{window}: the page did not load: {dom:.3000}"));
        let seen = dom[start..].split('<').next().unwrap();
        let value = |name: &str| {
            let line = seen.lines().find_map(|line| line.split_once(&format!("{name}=")));
            line.map_or_else(|| panic!("{window}: no {name} in {seen}"), |(_, value)| value.to_string())
        };
        let count = |name: &str| value(name).parse::<usize>().unwrap();
        // Reconstruction has three lines a run, the probe three, and seven charts or more have one.
        assert!(count("curves") >= 26, "{window}: {seen}");
        assert!(count("images") >= 2 && count("broken") == 0, "{window}: {seen}");
        assert!(count("fewer") < count("curves"), "{window}: {seen}");
        assert!(value("tip").contains("step 3") || value("tip").contains("step 4"), "{window}: {seen}");
        for fact in ["zoomed", "back", "time", "theme"] {
            assert_eq!(value(fact), "true", "{window}: {fact} in {seen}");
        }
        assert_eq!((value("wide").as_str(), count("errors")), ("false", 0), "{window}: {seen}");
        for shown in ["kNN top-1", "masking.kind", "&quot;tube&quot;", "GFLOP/s"] {
            let shown = shown.replace("&quot;", "\"");
            assert!(dom.contains(&shown), "{window}: {shown}");
        }
    }
}

#[test]
fn a_report_of_no_run_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let error = fails(1, &["report", text(dir.path())]);
    assert!(error.contains("no run"), "{error}");
    assert_eq!(tgm(&["report"]).status.code(), Some(2));
}

/// Asks TensorBoard's own reader, where Python has it: `TGM_PYTHON` names the interpreter.
#[test]
fn tensorboard_lists_the_scalars_the_pictures_and_the_config_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let [run, _] = two_runs(dir.path());
    // A run that was resumed has two event files, the second of which takes over.
    ok(&["pretrain", "--out", text(&run), "--resume", "--steps", "8"]);
    let events: Vec<_> = fs::read_dir(run.join("tensorboard")).unwrap().collect();
    assert_eq!(events.len(), 2);
    let python = std::env::var("TGM_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = "
import sys
try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    print('skipped: this Python has no TensorBoard'); sys.exit()
events = EventAccumulator(sys.argv[1]); events.Reload()
tags = events.Tags()
print('scalars', *sorted(t.replace(' ', '_') for t in tags['scalars'] + tags['tensors']))
print('images', len(tags['images']), [e.step for e in events.Images(tags['images'][0])])
image = events.Images(tags['images'][0])[-1]
print('size', image.width, image.height, image.encoded_image_string[1:4].decode())
print('steps', [e.step for e in events.Scalars('loss/joint')])
print('config', events.Tensors('config')[0].tensor_proto.string_val[0].decode()[:20].split())
";
    let output = Command::new(&python).args(["-c", script, text(&run.join("tensorboard"))]).output();
    let Ok(output) = output else {
        println!("skipped: no {python}");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if said.starts_with("skipped") {
        println!("{said}");
        return;
    }
    for wanted in [
        "loss/joint",
        "loss/reconstruction_of_the_mean",
        "loss/reconstruction_of_a_copy",
        "loss/contrastive_over_ln_B",
        "optimiser/learning_rate",
        "speed/share_of_peak",
        "probe/kNN_top-1",
        "images 1 [2, 4, 6, 8]",
        "steps [1, 2, 3, 4, 5, 6, 7, 8]",
        "PNG",
        "```toml",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}
