// A callable that somebody else owns, as a parameter: std::function without the copy, so that
// calling through it takes no memory.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace paddock {

template <typename Signature>
class FunctionRef;

/// Valid while the callable it was made from lives: for parameters only.
template <typename Result, typename... Args>
class FunctionRef<Result(Args...)> {
 public:
  template <typename Fn>
  requires(!std::is_same_v<std::remove_cvref_t<Fn>, FunctionRef>)
      FunctionRef(Fn&& fn)  // NOLINT: made of a lambda at the call
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(fn)))),
        call_([](void* object, Args... args) -> Result {
          return (*static_cast<std::remove_reference_t<Fn>*>(object))(std::forward<Args>(args)...);
        }) {}

  Result operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  Result (*call_)(void*, Args...);
};

}  // namespace paddock
