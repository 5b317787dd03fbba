use super::*;

/// A folder of its own, gone at the end.
fn check(name: &str, test: impl FnOnce(&Path, &TokenStore)) {
    let folder = std::env::temp_dir().join(format!("forerun-tokens-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    test(&folder, &TokenStore::of(&folder));
    fs::remove_dir_all(&folder).unwrap();
}

fn who(store: &TokenStore, token: &str) -> Option<String> {
    store.caller(token).unwrap().map(|caller| caller.who)
}

#[test]
fn a_token_is_known_by_its_hash_alone() {
    check("hash", |folder, store| {
        assert!(!store.any().unwrap());
        let token = store.create("ci", Role::Operator, Some("acme"), None).unwrap();
        assert_eq!(token.len(), PREFIX.len() + 64);
        let caller = store.caller(&token).unwrap().unwrap();
        let acme = Some("acme".to_owned());
        assert_eq!(caller, Caller { who: "token ci".to_owned(), role: Role::Operator, tenant: acme });
        // As any other program computes it.
        let text = fs::read_to_string(folder.join("tokens.json")).unwrap();
        assert!(text.contains(&digest(&token)) && !text.contains(&token[PREFIX.len()..]), "{text}");
        assert_eq!(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mode = fs::metadata(folder.join("tokens.json")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        for other in ["", PREFIX, &token[1..], &format!("{token}0"), &token.to_uppercase()] {
            assert_eq!(who(store, other), None, "{other}");
        }
    });
}

#[test]
fn what_another_process_changes_counts_at_once() {
    check("others", |folder, store| {
        let other = TokenStore::of(folder);
        let first = other.create("a", Role::Viewer, None, None).unwrap();
        assert_eq!(who(store, &first).as_deref(), Some("token a"));
        let second = other.rotate("a", Duration::ZERO).unwrap();
        assert_eq!((who(store, &first), who(store, &second).as_deref()), (None, Some("token a")));
        other.revoke("a").unwrap();
        assert_eq!(who(store, &second), None);
        assert!(store.list().unwrap().is_empty());
    });
}

#[test]
fn an_old_token_counts_as_long_as_was_said() {
    check("overlap", |_, store| {
        let old = store.create("a", Role::Viewer, None, None).unwrap();
        let new = store.rotate("a", Duration::from_secs(3_600)).unwrap();
        assert!(who(store, &old).is_some() && who(store, &new).is_some());
        // Rotated once more, only one before it counts.
        store.rotate("a", Duration::from_secs(3_600)).unwrap();
        assert!(who(store, &old).is_none() && who(store, &new).is_some());
        let brief = store.create("b", Role::Viewer, None, Some(Duration::ZERO)).unwrap();
        assert_eq!(who(store, &brief), None);
        store.revoke("a").unwrap();
        assert!(!store.any().unwrap(), "one that has expired lets nobody in");
    });
}

#[test]
fn slips_are_refused_with_the_mend() {
    check("slips", |folder, store| {
        let told = |error: TokenError| error.to_string();
        assert!(told(store.revoke("a").unwrap_err()).ends_with("there is none at all"));
        store.create("a", Role::Viewer, None, None).unwrap();
        let taken = told(store.create("a", Role::Admin, None, None).unwrap_err());
        assert!(taken.contains("rotate or revoke it"), "{taken}");
        for name in ["", "a b", "ü", &"x".repeat(64), "../a"] {
            let error = store.create(name, Role::Viewer, None, None).unwrap_err();
            assert!(matches!(error, TokenError::Name(_)), "{name}: {error}");
        }
        assert!(told(store.rotate("b", Duration::ZERO).unwrap_err()).ends_with("there are a"));
        let path = folder.join("tokens.json");
        for (text, part) in [
            ("{", "EOF while parsing"),
            ("{\"version\":2,\"tokens\":[]}", "is of version 2"),
            ("{\"version\":1,\"tokens\":[],\"x\":1}", "unknown field"),
        ] {
            fs::write(&path, text).unwrap();
            let error = told(store.caller("forerun_x").unwrap_err());
            assert!(error.contains(part) && error.contains("restore it, or remove it"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(told(store.caller("forerun_x").unwrap_err()).contains("chmod 600"));
    });
}

#[test]
fn makers_at_the_same_time_lose_nothing() {
    check("together", |folder, store| {
        std::thread::scope(|scope| {
            for at in 0..8 {
                scope.spawn(move || {
                    let name = format!("t{at}");
                    TokenStore::of(folder).create(&name, Role::Viewer, None, None).unwrap();
                });
            }
        });
        assert_eq!(store.list().unwrap().len(), 8);
    });
}
