//! Values that are read from text.

/// Has `$type` taken from text wherever it is taken by `TryFrom`, by what its `FromStr` says.
macro_rules! try_from_text {
    ($type:ty) => {
        impl TryFrom<&str> for $type {
            type Error = $crate::Error;
            fn try_from(text: &str) -> $crate::Result<Self> {
                text.parse()
            }
        }

        impl TryFrom<String> for $type {
            type Error = $crate::Error;
            fn try_from(text: String) -> $crate::Result<Self> {
                text.parse()
            }
        }

        impl TryFrom<&String> for $type {
            type Error = $crate::Error;
            fn try_from(text: &String) -> $crate::Result<Self> {
                text.parse()
            }
        }
    };
}

pub(crate) use try_from_text;

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use crate::{Error, Host, Incarnation, InstanceId, ServiceName, Status, Version, Zone};

    fn reads<T>(good: &str, bad: &str)
    where
        T: Debug + PartialEq + std::str::FromStr<Err = Error>,
        T: for<'a> TryFrom<&'a str, Error = Error> + TryFrom<String, Error = Error>,
        T: for<'a> TryFrom<&'a String, Error = Error>,
    {
        let parsed: T = good.parse().unwrap();
        assert_eq!(T::try_from(good).unwrap(), parsed);
        assert_eq!(T::try_from(good.to_owned()).unwrap(), parsed);
        assert_eq!(T::try_from(&good.to_owned()).unwrap(), parsed);
        let error = bad.parse::<T>().unwrap_err().to_string();
        assert_eq!(T::try_from(bad).unwrap_err().to_string(), error);
        assert_eq!(T::try_from(bad.to_owned()).unwrap_err().to_string(), error);
        assert_eq!(T::try_from(&bad.to_owned()).unwrap_err().to_string(), error);
    }

    #[test]
    fn text_is_taken_by_try_from_as_it_is_parsed() {
        reads::<Host>("node.example", "a b");
        reads::<Version>("2.1", "v1");
        reads::<Status>("draining", "Draining");
        reads::<Incarnation>("000000000000000000000000000000ff", "ff");
        reads::<ServiceName>("orders", "");
        reads::<InstanceId>("a", "a\n");
        reads::<Zone>("eu-west-1a", " ");
    }
}
