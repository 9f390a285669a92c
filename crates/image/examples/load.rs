//! Loads an image archive into a store and says how long it took: `load ARCHIVE DATA_ROOT`.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [archive, root] = arguments.as_slice() else {
        return Err("usage: load ARCHIVE DATA_ROOT".into());
    };
    let root = Path::new(root);
    std::fs::create_dir_all(root)?;
    let store = image::Store::open(
        root,
        db::Db::open(&root.join("cooper.db"))?,
        image::Strays::Remove,
    )?;
    let begun = Instant::now();
    let mut file = std::fs::File::open(archive)?;
    let loaded = store.load(&mut file, &mut |_| ())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:.2} s", begun.elapsed().as_secs_f64())?;
    for image in loaded {
        let found = store.get(&image.id)?;
        writeln!(
            out,
            "{} {} bytes, {} layers",
            found.id,
            found.size_bytes,
            found.layers.len()
        )?;
    }
    let begun = Instant::now();
    store.sync_layers()?;
    writeln!(
        out,
        "synced after another {:.2} s",
        begun.elapsed().as_secs_f64()
    )?;
    Ok(())
}
