# The Python package's extension module, of the files `sources` of its own and nanobind's.
objects := $(patsubst %.cpp,%.o,$(notdir $(sources)))
flags := -O2 -DNDEBUG -std=c++17 -fPIC -fvisibility=hidden -ftls-model=initial-exec -fno-strict-aliasing \
	$(addprefix -I,$(include))
vpath %.cpp $(sort $(dir $(sources)))

_core.so: $(objects)
	$(compile) -shared $^ -L$(stage)/lib -lmlaprefill -Wl,-rpath,'$$ORIGIN' -o $@
%.o: %.cpp
	$(compile) $(flags) -MMD -c $< -o $@
-include $(wildcard *.d)
